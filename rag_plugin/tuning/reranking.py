"""What a cross-encoder said of each labelled query's fused list, kept as arrays, and what any setting makes of it.

Each passage is read once. How much say the cross-encoder has and how far down it reads is arithmetic after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.pipelines import document_id
from rag_plugin.evaluation.progress import progress_bar
from rag_plugin.evaluation.significance import paired_randomisation_test
from rag_plugin.postprocessor import CrossEncoderRerank
from rag_plugin.reranking.blend import auto_weight, blended, retrieval_part
from rag_plugin.reranking.second_look import are_of_auto, is_readable
from rag_plugin.store.tuned import RerankSetting
from rag_plugin.tuning.report import RerankReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.schema import NodeWithScore

    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.types import DoubleArray, IntArray

STRENGTHS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""From no reranking to a cross-encoder with three quarters of the say. Doublings: on six collections a factor of
1.5 moves nDCG@10 by about .001, which a few hundred queries cannot tell from nothing."""

DEPTHS: Final = (10, 20, 30, 50)
"""A passage below the fiftieth place is relevant too seldom to pay for reading it."""


@dataclass(frozen=True)
class ReadList:
    """One query's fused list and what the cross-encoder said of it.

    Attributes:
        scores: `(n,)` of fusion, best first.
        logits: `(n,)` of the cross-encoder, NaN for what it has not read or cannot.
        documents: `(n,)` the ids that qrels know the hits by.
        absolute: Whether the scores are ``fusion="auto"``'s.
    """

    scores: tuple[float | None, ...]
    logits: DoubleArray
    documents: tuple[str, ...]
    absolute: bool

    @classmethod
    def of(
        cls, rerank: CrossEncoderRerank, query: str, hits: Sequence[NodeWithScore], depth: int
    ) -> ReadList:
        """Let the cross-encoder read the first `depth` hits.

        Raises:
            ModelError: It failed.
        """
        places = [place for place, hit in enumerate(hits[:depth]) if is_readable(hit)]
        texts = [hits[place].node.get_content(metadata_mode=rerank.metadata_mode) for place in places]
        logits = np.full(len(hits), np.nan)
        logits[places] = rerank.logits(query, texts)
        return cls(tuple(hit.score for hit in hits), logits, tuple(map(document_id, hits)), are_of_auto(hits))

    def ranked(self, setting: RerankSetting) -> list[str]:
        """Documents, each at its best hit's rank, after reranking every hit of the setting's depth."""
        return list(dict.fromkeys(self.documents[place] for place in self._order(setting).tolist()))

    def _order(self, setting: RerankSetting) -> IntArray:
        head = self.scores[: setting.depth]
        weight = auto_weight(head, absolute=self.absolute, strength=setting.strength)
        if weight == 0.0:
            return np.arange(len(self.scores))
        final = blended(self.logits[: len(head)], retrieval_part(head), weight, reached=len(head))
        return np.append(np.argsort(-final, kind="stable"), np.arange(len(head), len(self.scores)))


def worth(ranked: Sequence[str], judged: Mapping[str, int], measure: Measure) -> float:
    """The measure of documents, best first, each once."""
    gains = np.array([max(judged.get(document, 0), 0) for document in ranked], np.int64)
    return measure.value(gains, np.array(list(judged.values()), np.int64))


@dataclass(frozen=True)
class ReadLists:
    """What there is to choose from.

    Attributes:
        settings: The present one, then all that are tried.
        lists: One for each query.
    """

    settings: tuple[RerankSetting, ...]
    lists: tuple[ReadList, ...]

    @cached_property
    def rankings(self) -> list[list[list[str]]]:
        """What every setting makes of every list; labels play no part in it."""
        return [[each.ranked(setting) for each in self.lists] for setting in self.settings]

    @property
    def read(self) -> int:
        """Passages that were read."""
        return sum(int(np.count_nonzero(~np.isnan(each.logits))) for each in self.lists)


def check_reranker(rerank: CrossEncoderRerank, queries: int, folds: int) -> None:
    """Refuse a reranker that would not go by what is found, and too few queries to find anything."""
    if not isinstance(rerank, CrossEncoderRerank):
        raise InvalidInputError(f"rerank={rerank!r:.80}; expected a CrossEncoderRerank, or None.")
    if rerank.blend != "auto" or rerank.depth is not None:
        raise InvalidInputError(
            "tune() fits what a CrossEncoderRerank with blend='auto' and no depth does; this one has "
            f"blend={rerank.blend!r}, depth={rerank.depth!r}, fixed by hand."
        )
    check_folds(folds, queries, "rerank_queries")


def check_folds(folds: int, queries: int, name: str) -> None:
    """Refuse parts of the queries that leave fewer than two to choose by."""
    if not 2 <= folds < queries or queries < 4:
        raise InvalidInputError(
            f"folds={folds} with {queries} {name}; expected 2 or more, and more queries than folds, 4 at least."
        )


def draw(queries: Mapping[str, str], most: int, seed: int) -> dict[str, str]:
    """All queries, or as many as there may be, drawn at random, in their order."""
    if len(queries) <= most:
        return dict(queries)
    chosen = np.random.default_rng(seed).choice(len(queries), most, replace=False)
    ids = list(queries)
    return {ids[place]: queries[ids[place]] for place in sorted(chosen.tolist())}


def read_lists(
    retriever: HybridRetriever,
    rerank: CrossEncoderRerank,
    queries: Mapping[str, str],
    *,
    show_progress: bool = True,
) -> ReadLists:
    """Retrieve for every query, and let the cross-encoder read what any setting would.

    Raises:
        ModelError: The cross-encoder failed.
    """
    with retriever.store.view() as view:
        candidates = retriever.setting_in(view).candidates
        present = retriever.rerank_setting_in(view)
    model = rerank.fingerprint
    if present is None or present.model != model:
        present = RerankSetting(1.0, retriever.similarity_top_k, model)
    settings = tried_beside(present, candidates)
    deepest = max(setting.depth for setting in settings)
    deep = retriever.with_top_k(candidates)
    lists = []
    with progress_bar(show_progress) as bar:
        for query in bar.track(queries.values(), description="the cross-encoder reads"):
            lists.append(ReadList.of(rerank, query, deep.retrieve(query), deepest))
    return ReadLists(settings, tuple(lists))


def tried_beside(present: RerankSetting, length: int) -> tuple[RerankSetting, ...]:
    """The present setting, none at all, and what else is tried on lists of this length."""
    depths = [depth for depth in DEPTHS if depth <= length] or [length]
    others = [
        RerankSetting(strength, depth, present.model) for depth, strength in product(depths, STRENGTHS[1:])
    ]
    return (present, RerankSetting(0.0, depths[0], present.model), *others)


def choose_reranking(
    read: ReadLists,
    judged: Sequence[Mapping[str, int]],
    measure: Measure,
    *,
    folds: int = 5,
    seed: int = 0,
    alpha: float = 0.01,
) -> RerankReport:
    """The setting that labels speak for, if they do; nothing is saved.

    Args:
        read: What there is to choose from.
        judged: Relevance by document id, for each of its queries.
        measure: What to improve.
        folds: As in `tune`.
        seed: As in `tune`.
        alpha: As in `tune`.
    """
    values = np.array(
        [
            [worth(ranked, own, measure) for ranked, own in zip(by_query, judged, strict=True)]
            for by_query in read.rankings
        ]
    )
    without = values[1 + [setting.strength for setting in read.settings[1:]].index(0.0)]
    return RerankReport.of(
        read.settings,
        values,
        measure,
        folds=folds,
        seed=seed,
        alpha=alpha,
        without_value=float(without.mean()),
        gain=paired_randomisation_test(values[0], without, seed=seed),
        read=read.read,
    )
