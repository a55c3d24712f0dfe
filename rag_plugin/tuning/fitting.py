"""`tune`: fit what ``fusion="auto"`` does to labelled queries, and only if that is more than luck."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError, StoreReadOnlyError
from rag_plugin.evaluation.measures import Measure
from rag_plugin.evaluation.significance import paired_randomisation_test
from rag_plugin.store.change_log import select_in
from rag_plugin.store.tuned import SETTING, Belonging, FusionSetting, learned_value
from rag_plugin.tuning.gathering import Found, find, values
from rag_plugin.tuning.grid import families
from rag_plugin.tuning.report import TuningReport
from rag_plugin.tuning.selection import cross_validated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_plugin.evaluation.measures import Qrels
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.bm25 import Bm25
    from rag_plugin.store.hybrid_store import HybridStore
    from rag_plugin.store.view import View


def tune(
    retriever: HybridRetriever,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measure: str | Measure = "nDCG@10",
    folds: int = 5,
    seed: int = 0,
    alpha: float = 0.05,
    save: bool = True,
) -> TuningReport:
    """Fit fusion rule, weights, feedback, candidates and BM25 to labelled queries, and refuse to fit noise.

    Each fold's setting is chosen on the other folds, with shrinkage to what the retriever does now, and
    measured on the fold itself. Only if those held-out values beat the present setting's in a paired test is
    anything changed: then the setting that all queries choose is kept in the store, where every
    ``HybridRetriever`` with ``fusion="auto"`` and no ``weights`` finds it. One test is made, on queries that
    had no part in choosing, so the number of settings looked at needs no further correction.

    Args:
        retriever: A hybrid one with ``fusion="auto"`` and no ``weights``; its filters and query transform
            apply, its ``diversity`` and ``min_score`` do not.
        queries: Text by query id; a few hundred say something, a few dozen hardly ever do.
        qrels: Relevance by query id and passage id, which is the ``ref_doc_id`` of a node, or its own id if
            it has none.
        measure: What to improve.
        folds: Parts of the queries, 2 or more.
        seed: Of the shuffle that deals queries to folds, and of the test.
        alpha: The largest p-value that counts as more than luck, two-sided.
        save: Keep a better setting in the store; with False the report alone tells of it.

    Returns:
        What was tried, chosen and gained, and whether anything changed.

    Raises:
        InvalidInputError: No queries, fewer than folds + 1, one that is blank or has no judgement, a judged
            query or relevant passage that is not there, or a retriever whose fusion was fixed by hand.
        StoreReadOnlyError: ``save`` is set and the store was opened read-only.

    Example:
        >>> from rag_plugin.retriever import HybridRetriever
        >>> from rag_plugin.store.hybrid_store import HybridStore
        >>> tune(HybridRetriever(HybridStore()), {}, {})
        Traceback (most recent call last):
        rag_plugin.errors.InvalidInputError: no queries were given; expected {query_id: text}
    """
    wanted = Measure.parse(measure) if isinstance(measure, str) else measure
    store = retriever.store
    _check_labels(queries, qrels, folds, alpha)
    if save and store.read_only:
        raise StoreReadOnlyError(
            f"{store!r} is open read-only, so nothing learned can be kept in it. Open it for writing, or "
            "pass save=False."
        )
    if not (retriever.takes_tuning and store.holds_vectors):
        raise InvalidInputError(
            "tune() fits what a retriever with mode='hybrid', fusion='auto' and no weights does, over a store "
            "with vectors; this one has one leg alone, or its fusion was fixed by hand."
        )
    prepared = {query_id: retriever.prepared(text) for query_id, text in queries.items()}
    with store.view() as view:
        _check_passages(view, qrels)
        present = retriever.setting(view)
        tried = families(present, view.legs.sparse.bm25)
        ways: dict[Bm25 | None, View] = {family.setting.bm25: family.setting.scored(view) for family in tried}
        depth = max(family.setting.candidates for family in tried)
        mask = view.select(retriever.filters).mask
        found: list[Found] = [
            find(view, retriever.query_in(view, *prepared[query_id]), ways, depth, mask, qrels[query_id])
            for query_id in queries
        ]
        belonging = Belonging.of(view, retriever.embedding_id)
    # The read transaction has ended; what is computed from here on reads the legs, which never change.
    worth = np.stack([values(view, one, tried, wanted) for one in found], axis=1)
    settings = tuple(setting for family in tried for setting in family.settings)
    choice = cross_validated(worth, folds=folds, seed=seed)
    test = paired_randomisation_test(choice.held_out, worth[0], seed=seed)
    changed = choice.best != 0 and test.difference > 0.0 and test.p_value < alpha
    if changed and save:
        _remember(store, settings[choice.best], belonging)
    return TuningReport(
        measure=wanted,
        queries=len(queries),
        tried=len(settings),
        present=present,
        best=settings[choice.best],
        by_fold=tuple(settings[index] for index in choice.by_fold.tolist()),
        present_value=float(worth[0].mean()),
        held_out_value=float(choice.held_out.mean()),
        fitted_value=float(worth[choice.best].mean()),
        test=test,
        alpha=alpha,
        changed=changed,
        saved=changed and save,
    )


def _remember(store: HybridStore, setting: FusionSetting, belonging: Belonging) -> None:
    store.client.remember(SETTING, learned_value(setting, belonging))


def _check_labels(queries: Mapping[str, str], qrels: Qrels, folds: int, alpha: float) -> None:
    if not queries:
        raise InvalidInputError("no queries were given; expected {query_id: text}")
    if blank := [query_id for query_id, text in queries.items() if not text.strip()]:
        raise InvalidInputError(f"{_some('query', blank)} blank; expected text to search for")
    if unknown := [query_id for query_id in qrels if query_id not in queries]:
        raise InvalidInputError(
            f"{_some('query', unknown)} judged in the qrels and missing from the queries; expected both to "
            "use the same query ids"
        )
    if bare := [query_id for query_id in queries if not qrels.get(query_id)]:
        raise InvalidInputError(
            f"{_some('query', bare)} without a judgement in the qrels; leave such queries out, nothing says "
            "what they should find"
        )
    if not 2 <= folds < len(queries):
        raise InvalidInputError(
            f"folds={folds} with {len(queries)} queries; expected 2 or more, and more queries than folds"
        )
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError(f"alpha={alpha}; expected a p-value between 0 and 1")


def _check_passages(view: View, qrels: Qrels) -> None:
    """Refuse labels of another corpus: a relevant passage that cannot be found teaches nothing.

    Raises:
        InvalidInputError: A relevant passage is not in the store.
    """
    wanted = sorted({passage for judged in qrels.values() for passage, rel in judged.items() if rel > 0})
    known: set[str] = set()
    for statement in (
        "SELECT ref_doc_id FROM nodes WHERE ref_doc_id IN",
        "SELECT node_id FROM nodes WHERE ref_doc_id IS NULL AND node_id IN",
    ):
        known.update(found for (found,) in select_in(view.connection, statement, wanted))
    if unknown := [passage for passage in wanted if passage not in known]:
        raise InvalidInputError(
            f"{_some('passage', unknown)} relevant in the qrels and missing from the store; expected the "
            "ref_doc_id of its nodes, or the id of a node that has none"
        )


def _some(what: str, ids: list[str]) -> str:
    """`query 'a' is`, or `3 queries are ('a', 'b', …)` in short."""
    if len(ids) == 1:
        return f"{what} {ids[0]!r} is"
    plural = "queries" if what == "query" else f"{what}s"
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} {plural} ({shown}) are"
