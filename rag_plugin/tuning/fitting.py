"""`tune`: fit what ``fusion="auto"`` does to labelled queries, and only if that is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError, StoreReadOnlyError
from rag_plugin.evaluation.measures import Measure
from rag_plugin.evaluation.significance import paired_randomisation_test
from rag_plugin.store.tuned import SETTING, Belonging, Learned
from rag_plugin.tuning.adaptation import PULLS, Lesson, moved
from rag_plugin.tuning.gathering import Corpus, find, values
from rag_plugin.tuning.grid import Family, Trial, alone, with_adapter, without_adapter
from rag_plugin.tuning.report import TuningReport
from rag_plugin.tuning.selection import cross_validated, dealt

if TYPE_CHECKING:
    from rag_plugin.evaluation.measures import Qrels
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.hybrid_search import Query
    from rag_plugin.store.view import View
    from rag_plugin.types import DoubleArray


def tune(
    retriever: HybridRetriever,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measure: str | Measure = "nDCG@10",
    folds: int = 5,
    seed: int = 0,
    alpha: float = 0.01,
    save: bool = True,
) -> TuningReport:
    """Fit fusion rule, weights, feedback, candidates and BM25 to labelled queries, and refuse to fit noise.

    Each fold's setting is chosen on the other folds, with shrinkage to what the retriever does now, and
    measured on the fold itself. Only if those held-out values beat the present setting's in a paired test is
    anything changed: then the setting that all queries choose is kept in the store, where every
    ``HybridRetriever`` with ``fusion="auto"`` and no ``weights`` finds it. One test is made, on queries that
    had no part in choosing, so the number of settings looked at needs no further correction.

    For cosine stores that includes a query adapter, a linear correction of query vectors. It could learn the
    labelled passages by heart, so settings are chosen by what they are worth when it has learned nothing of a
    query's own passages, and none is kept that loses there.

    Args:
        retriever: A hybrid one with ``fusion="auto"`` and no ``weights``; its filters and query transform
            apply, its ``diversity`` and ``min_score`` do not.
        queries: Text by query id; a few hundred say something, a few dozen hardly ever do.
        qrels: Relevance by query id and passage id, which is the ``ref_doc_id`` of a node, or its own id if
            it has none.
        measure: What to improve.
        folds: Parts of the queries, 2 or more.
        seed: Of the shuffle that deals queries to folds, and of the test.
        alpha: The largest p-value that counts as more than luck, two-sided; a ranking that people are used to
            should not change for a chance of one in twenty.
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
    if not retriever.takes_tuning:
        raise InvalidInputError(
            "tune() fits what a retriever with mode='hybrid', fusion='auto' and no weights does; this one has "
            "one leg alone, or its fusion was fixed by hand."
        )
    prepared = {query_id: retriever.prepared(text) for query_id, text in queries.items()}
    with store.view() as view:
        present = retriever.learned_in(view)
        corpus = _corpus(view, retriever, qrels)
        asked = [retriever.query_in(view, *prepared[query_id]) for query_id in queries]
        belonging = Belonging.of(view, retriever.embedding_id)
    # The read transaction has ended; what is computed from here on reads the legs, which never change.
    judged = [qrels[query_id] for query_id in queries]
    deals = dealt(len(queries), folds=folds, seed=seed)
    own_bm25 = corpus.view.legs.sparse.bm25
    as_now = [moved(query, present.adapter) for query in asked]
    stages: list[tuple[tuple[Family, ...], float | None, list[Query], list[Query]]] = [
        ((alone(present.setting),), None, as_now, as_now),
        (without_adapter(own_bm25), None, asked, asked),
    ]
    lesson = Lesson.of(corpus, asked, judged, seed)
    if lesson is not None:
        for pull in PULLS:
            like_these = lesson.cross_fitted(asked, deals[0], pull, apart=False)
            like_others = lesson.cross_fitted(asked, deals[0], pull, apart=True)
            stages.append((with_adapter(), pull, like_these, like_others))
    trials = tuple(Trial(one, pull) for tried, pull, *_ in stages for each in tried for one in each.settings)
    alike, apart = [], []
    for tried, _, given, given_apart in stages:
        alike.append(_worth(corpus, given, judged, tried, wanted))
        same = given is given_apart
        apart.append(alike[-1] if same else _worth(corpus, given_apart, judged, tried, wanted))
    worth, worth_apart = np.concatenate(alike), np.concatenate(apart)
    # Chosen by what also helps queries about passages that no label speaks of; tested on queries like these.
    choice = cross_validated(worth, deals, worth_apart)
    test = paired_randomisation_test(choice.held_out, worth[0], seed=seed)
    harmless = float(np.mean(choice.held_out_strictly - worth[0])) >= 0.0
    best = trials[choice.best]
    changed = choice.best != 0 and test.difference > 0.0 and test.p_value < alpha and harmless
    if changed and save:
        adapter = None
        if lesson is not None and best.pull is not None:
            adapter = lesson.adapter(np.ones(len(queries), bool), best.pull)
        store.client.remember(SETTING, Learned(best.setting, adapter).to_json(belonging))
    return TuningReport(
        measure=wanted,
        queries=len(queries),
        tried=len(trials),
        present=trials[0],
        best=best,
        by_fold=tuple(trials[index] for index in choice.by_fold.tolist()),
        present_value=float(worth[0].mean()),
        held_out_value=float(choice.held_out.mean()),
        apart_value=float(choice.held_out_strictly.mean()),
        fitted_value=float(worth[choice.best].mean()),
        test=test,
        alpha=alpha,
        changed=changed,
        saved=changed and save,
    )


def _worth(
    corpus: Corpus,
    asked: Sequence[Query],
    judged: Sequence[Mapping[str, int]],
    tried: Sequence[Family],
    measure: Measure,
) -> DoubleArray:
    """`(settings, queries)` What each setting of the families is worth on each query."""
    ways = list(dict.fromkeys(family.setting.bm25 for family in tried))
    depth = max(family.setting.candidates for family in tried)
    return np.stack(
        [
            values(corpus, find(corpus, query, ways, depth, judgements), tried, measure)
            for query, judgements in zip(asked, judged, strict=True)
        ],
        axis=1,
    )


def _corpus(view: View, retriever: HybridRetriever, qrels: Qrels) -> Corpus:
    """What the retriever searches, with every relevant passage of the labels in it.

    Raises:
        InvalidInputError: The store holds no vectors, or lacks a relevant passage: then the labels are those
            of another corpus, and what cannot be found teaches nothing.
    """
    dense = view.legs.dense
    if dense is None:
        raise InvalidInputError("the store holds no vectors; tune() fits a dense and a sparse leg together")
    corpus = Corpus.of(view, dense, view.select(retriever.filters).mask)
    wanted = sorted({passage for judged in qrels.values() for passage, rel in judged.items() if rel > 0})
    if unknown := [passage for passage in wanted if passage not in corpus.numbers]:
        raise InvalidInputError(
            f"{_some('passage', unknown)} relevant in the qrels and missing from the store; expected the "
            "ref_doc_id of its nodes, or the id of a node that has none"
        )
    return corpus


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


def _some(what: str, ids: list[str]) -> str:
    """`query 'a' is`, or `3 queries are ('a', 'b', …)` in short."""
    if len(ids) == 1:
        return f"{what} {ids[0]!r} is"
    plural = "queries" if what == "query" else f"{what}s"
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} {plural} ({shown}) are"
