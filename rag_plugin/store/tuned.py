"""What tuning taught a store: how to fuse and how to rerank, and what that was learned from.

It lies in the store's settings, so that it travels with backups and every reader finds it. It is used only
where it belongs: another embedding model, analyzer, metric or dimension makes it void, and another fusion or
another cross-encoder what was learned about reranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rag_plugin.errors import InvalidInputError, StoreFormatError
from rag_plugin.fusion import EQUAL_WEIGHTS, Fusion, parse_fusion, parse_weights
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.view import View

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTING: Final = "tuning"
RERANKING: Final = "rerank tuning"
VERSION: Final = 1

DEFAULT_CANDIDATES: Final = 100


@dataclass(frozen=True)
class FusionSetting:
    """How candidates are found and become one ranking.

    Attributes:
        fusion: One of :data:`rag_plugin.fusion.FUSIONS`.
        weights: Of the dense and the sparse leg; only their ratio counts.
        feedback: Whether ``auto`` lets the best candidates speak.
        candidates: Nodes each leg proposes.
        bm25: How the sparse leg scores; None for the way the store was opened with.

    Raises:
        InvalidInputError: A value outside its range.
    """

    fusion: Fusion = "auto"
    weights: tuple[float, float] = EQUAL_WEIGHTS
    feedback: bool = True
    candidates: int = DEFAULT_CANDIDATES
    bm25: Bm25 | None = None

    def __post_init__(self) -> None:
        """Refuse what no retriever takes."""
        parse_fusion(self.fusion)
        parse_weights(self.weights)
        if len(self.weights) != 2 or self.candidates < 1:
            raise InvalidInputError(
                f"weights={self.weights!r}, candidates={self.candidates!r}; expected two weights, 1 or more."
            )

    def scored(self, view: View) -> View:
        """The view with a sparse leg that scores as this setting says; postings do not depend on it."""
        if self.bm25 is None or self.bm25 == view.legs.sparse.bm25:
            return view
        sparse = replace(view.legs.sparse, bm25=self.bm25)
        return replace(view, legs=replace(view.legs, sparse=sparse))

    def as_learned(self, learned: FusionSetting | None, top_k: int) -> FusionSetting:
        """What tuning found, where it found anything, as far as these own arguments of a retriever leave it open.

        Args:
            learned: What tuning found, or None.
            top_k: Hits that will be asked for: the fewest candidates that make sense.
        """
        if learned is None:
            return self
        candidates = self.candidates
        if candidates == DEFAULT_CANDIDATES:
            candidates = max(learned.candidates, top_k)
        return replace(learned, feedback=learned.feedback and self.feedback, candidates=candidates)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "fusion": self.fusion,
            "weights": list(self.weights),
            "feedback": self.feedback,
            "candidates": self.candidates,
            "bm25": None if self.bm25 is None else self.bm25.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> FusionSetting:
        """What `to_json` wrote.

        Raises:
            InvalidInputError: A field is missing, or its value is out of its range.
        """
        try:
            dense, sparse = fields["weights"]
            bm25 = fields["bm25"]
            return cls(
                parse_fusion(fields["fusion"]),
                (float(dense), float(sparse)),
                bool(fields["feedback"]),
                int(fields["candidates"]),
                None if bm25 is None else Bm25.from_json(bm25),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"no fusion setting: {fields!r} ({type(error).__name__}: {error})"
            ) from error

    def __str__(self) -> str:
        """On one line, for reports."""
        parts = [self.fusion, f"dense:sparse {self.weights[0]:g}:{self.weights[1]:g}"]
        if self.fusion == "auto":
            parts.append(f"feedback {'on' if self.feedback else 'off'}")
        parts.append(f"{self.candidates} candidates")
        if self.bm25 is not None:
            parts.append(f"BM25 k1={self.bm25.k1:g} b={self.bm25.b:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class RerankSetting:
    """How much say a cross-encoder has after fusion, and how far down the list it reads.

    Attributes:
        strength: Its say, in multiples of what ``blend="auto"`` gives it untuned; 0 leaves the fused order alone.
        depth: Hits it reads at most.
        model: Fingerprint of the cross-encoder it was learned with.

    Raises:
        InvalidInputError: A value outside its range.
    """

    strength: float
    depth: int
    model: str

    def __post_init__(self) -> None:
        """Refuse what no reranker takes."""
        if not (0.0 <= self.strength < float("inf") and self.depth >= 1):
            raise InvalidInputError(
                f"strength={self.strength!r}, depth={self.depth!r}; expected a finite 0 or more, 1 or more."
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {"strength": self.strength, "depth": self.depth, "model": self.model}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RerankSetting:
        """What `to_json` wrote.

        Raises:
            InvalidInputError: A field is missing, or its value is out of its range.
        """
        try:
            return cls(float(fields["strength"]), int(fields["depth"]), str(fields["model"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"no rerank setting: {fields!r} ({type(error).__name__}: {error})"
            ) from error

    def __str__(self) -> str:
        """On one line, for reports."""
        if self.strength == 0.0:
            return "no reranking"
        return f"{self.strength:g} times the say of auto, the first {self.depth} read"


S = TypeVar("S", FusionSetting, RerankSetting)


@dataclass(frozen=True)
class Belonging:
    """What a tuning was learned from, and is true for.

    Attributes:
        embedding: Id of the embedding model.
        analyzer: Fingerprint of the analyzer.
        metric: How vectors are compared.
        dimension: Their components.
    """

    embedding: str
    analyzer: str
    metric: str
    dimension: int

    @classmethod
    def of(cls, view: View, embedding: str) -> Belonging:
        """What a tuning learned from this view with queries of this model belongs to."""
        dense = view.legs.dense
        return cls(
            embedding,
            str(view.legs.sparse.analyzer.fingerprint()),
            "" if dense is None else dense.metric,
            0 if dense is None else dense.dimension,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that equals that of the same belonging."""
        return {
            "embedding": self.embedding,
            "analyzer": self.analyzer,
            "metric": self.metric,
            "dimension": self.dimension,
        }


def to_remember(setting: FusionSetting | RerankSetting, belonging: Belonging) -> dict[str, Any]:
    """What to keep in the store under :data:`SETTING`."""
    return {"version": VERSION, "belongs_to": belonging.to_json(), "setting": setting.to_json()}


def reranking_to_remember(
    setting: RerankSetting, belonging: Belonging, over: FusionSetting | None
) -> dict[str, Any]:
    """What to keep in the store under :data:`RERANKING`.

    Args:
        setting: What was learned.
        belonging: From what.
        over: What tuning had taught about fusion by then: another rule gives scores of another scale.
    """
    return to_remember(setting, belonging) | {"over": None if over is None else over.to_json()}


def learned(view: View, embedding: str | None) -> FusionSetting | None:
    """What tuning left in the store, if it belongs to this view and this embedding model.

    Args:
        view: The store as a query sees it.
        embedding: Id of the model that embeds queries; None where vectors come from the caller, who knows.

    Raises:
        StoreFormatError: It was written by a newer version, or it is damaged.
    """
    found = _kept(view, SETTING, embedding)
    return None if found is None else _read(FusionSetting, found, SETTING)


def learned_rerank(view: View, embedding: str | None) -> RerankSetting | None:
    """What tuning left in the store about reranking, if it belongs to this view, model and tuned fusion.

    Args:
        view: The store as a query sees it.
        embedding: As for `learned`.

    Raises:
        StoreFormatError: It was written by a newer version, or it is damaged.
    """
    found = _kept(view, RERANKING, embedding)
    if found is None:
        return None
    over = learned(view, embedding)
    if found.get("over") != (None if over is None else over.to_json()):
        return None
    return _read(RerankSetting, found, RERANKING)


def _kept(view: View, key: str, embedding: str | None) -> dict[str, Any] | None:
    """What lies under the key, if it belongs to this view."""
    found = view.settings.get(key)
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise StoreFormatError(
            f"The store's {key} is {str(found)[:200]}; this version reads version {VERSION}. Upgrade "
            "rag-plugin, or tune the store again."
        )
    try:
        learned_from = found["belongs_to"]
        here = Belonging.of(view, learned_from["embedding"] if embedding is None else embedding)
    except (KeyError, TypeError) as error:
        raise _damaged(key, error) from error
    return found if here.to_json() == learned_from else None


def _read(kind: type[S], found: Mapping[str, Any], key: str) -> S:
    try:
        return kind.from_json(found["setting"])
    except (KeyError, TypeError, InvalidInputError) as error:
        raise _damaged(key, error) from error


def _damaged(key: str, error: Exception) -> StoreFormatError:
    return StoreFormatError(f"The store's {key} is damaged ({error}). Tune the store again.")
