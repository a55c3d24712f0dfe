"""`tune`: fit fusion, and reranking after it, to labelled queries, and only if that is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError, StoreReadOnlyError
from rag_plugin.evaluation.measures import Measure
from rag_plugin.evaluation.progress import progress_bar
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.tuned import (
    RERANKING,
    SETTING,
    Belonging,
    FusionSetting,
    learned,
    reranking_to_remember,
    to_remember,
)
from rag_plugin.tuning.gathering import Corpus, Rankings, find, rankings
from rag_plugin.tuning.grid import alone, families
from rag_plugin.tuning.report import TuningReport
from rag_plugin.tuning.reranking import check_folds, check_reranker, choose_reranking, draw, read_lists

if TYPE_CHECKING:
    from rag_plugin.evaluation.measures import Qrels
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever


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
    rerank: CrossEncoderRerank | None = None,
    rerank_queries: int = 200,
    show_progress: bool = True,
) -> TuningReport:
    """Fit fusion rule, weights, feedback, candidates and BM25 to labelled queries, and refuse to fit noise.

    With ``rerank``, also how much say the cross-encoder has after that fusion, down to none, and how many hits
    it reads; a ``CrossEncoderRerank`` of the same model with ``blend="auto"`` and no ``depth`` goes by what was
    found, for hits of this store.

    Each fold's setting is chosen on the other folds, with shrinkage to what the retriever does now, and
    measured on the fold itself. Only if those held-out values beat the present setting's in a paired test is
    anything changed: then the setting that all queries choose is kept in the store, where every
    ``HybridRetriever`` with ``fusion="auto"`` and no ``weights`` finds it. One test is made, on queries that
    had no part in choosing, so the number of settings looked at needs no further correction. Fusion and reranking
    are two questions with a test each.

    Args:
        retriever: A hybrid one with ``fusion="auto"`` and no ``weights``; its filters and query transform
            apply, its ``diversity`` and ``min_score`` to reranking alone.
        queries: Text by query id; a few hundred say something, a few dozen hardly ever do.
        qrels: Relevance by query id and passage id, which is the ``ref_doc_id`` of a node, or its own id if
            it has none.
        measure: What to improve.
        folds: Parts of the queries, 2 or more.
        seed: Of the shuffle that deals queries to folds, and of the test.
        alpha: The largest p-value that counts as more than luck, two-sided; a ranking that people are used to
            should not change for a chance of one in twenty.
        save: Keep a better setting in the store; with False the report alone tells of it.
        rerank: The reranker to fit, with ``blend="auto"`` and no ``depth``; None leaves reranking as it is. What is
            compared with is what it does now with the retriever's ``similarity_top_k`` hits.
        rerank_queries: The most queries that the cross-encoder reads for, drawn by ``seed`` if there are more. It
            reads up to 50 passages for each: 200 queries take some minutes on a processor; scores that its
            ``cache`` holds cost nothing.
        show_progress: Draw a bar on stderr, where that is a terminal or a notebook.

    Returns:
        What was tried, chosen and gained, and whether anything changed.

    Raises:
        InvalidInputError: No queries, fewer than folds + 1, one that is blank or has no judgement, a judged
            query or relevant passage that is not there, or a retriever or reranker that was fixed by hand.
        ModelError: The cross-encoder failed.
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
    if not isinstance(store, HybridStore):
        raise InvalidInputError(
            f"tune() reads whole corpora, which {store!r} keeps on another machine. Tune a HybridStore of the same "
            "nodes; index_corpus() carries what it found over."
        )
    check_labels(queries, qrels, folds, alpha)
    if save and store.read_only:
        raise StoreReadOnlyError(
            f"{store!r} is open read-only, so nothing learned can be kept in it. Open it for writing, or "
            "pass save=False."
        )
    if rerank is not None:
        check_reranker(rerank, rerank_queries, folds)
    ranked = rank(retriever, queries, wanted, show_progress=show_progress)
    report = choose(ranked, [qrels[query_id] for query_id in queries], folds=folds, seed=seed, alpha=alpha)
    if report.changed and save:
        store.client.remember(SETTING, to_remember(report.best, ranked.belonging))
        report = replace(report, saved=True)
    if rerank is None:
        return report
    if report.changed and not save:
        retriever = retriever.with_setting(report.best)
    drawn = draw(queries, rerank_queries, seed)
    read = read_lists(retriever, rerank, drawn, show_progress=show_progress)
    found = choose_reranking(
        read, [qrels[query_id] for query_id in drawn], wanted, folds=folds, seed=seed, alpha=alpha
    )
    if found.changed and save:
        with store.view() as view:
            over = learned(view, ranked.belonging.embedding)
        store.client.remember(RERANKING, reranking_to_remember(found.best, ranked.belonging, over))
        found = replace(found, saved=True)
    return replace(report, rerank=found)


@dataclass(frozen=True)
class Ranked:
    """What every setting returns for every query; labels have no part in it.

    Attributes:
        measure: What the rankings are deep enough for.
        settings: The present one, then all that are tried.
        by_query: For each query.
        numbers: Documents' numbers by the id that qrels know them by.
        belonging: What a choice among these settings belongs to.
    """

    measure: Measure
    settings: tuple[FusionSetting, ...]
    by_query: tuple[Rankings, ...]
    numbers: Mapping[str, int]
    belonging: Belonging


def rank(
    retriever: HybridRetriever, queries: Mapping[str, str], measure: Measure, *, show_progress: bool = False
) -> Ranked:
    """Search for every query as every setting would.

    Args:
        retriever: As `tune` takes it.
        queries: Text by query id.
        measure: Its cutoff is how deep the rankings are.
        show_progress: Draw a bar.

    Raises:
        InvalidInputError: The store holds no vectors, or the retriever's fusion was fixed by hand.
    """
    if not retriever.takes_tuning:
        raise InvalidInputError(
            "tune() fits what a retriever with mode='hybrid', fusion='auto' and no weights does; this one has "
            "one leg alone, or its fusion was fixed by hand."
        )
    with progress_bar(show_progress) as bar:
        texts = bar.track(queries.values(), description="the queries are embedded")
        prepared = [retriever.prepared(text) for text in texts]
    with retriever.store.view() as view:
        present = retriever.setting_in(view)
        dense = view.legs.dense
        if dense is None:
            raise InvalidInputError(
                "the store holds no vectors; tune() fits a dense and a sparse leg together"
            )
        corpus = Corpus.of(view, dense, view.select(retriever.filters).mask)
        asked = [retriever.query_in(view, *each) for each in prepared]
        belonging = Belonging.of(view, retriever.embedding_id)
    # The read transaction has ended; what is computed from here on reads the legs, which never change.
    tried = (alone(present), *families(view.legs.sparse.bm25))
    ways = list(dict.fromkeys(family.setting.bm25 for family in tried))
    depth = max(family.setting.candidates for family in tried)
    with progress_bar(show_progress) as bar:
        by_query = tuple(
            rankings(corpus, find(corpus, query, ways, depth), tried, measure.cutoff)
            for query in bar.track(asked, description="each setting is tried")
        )
    settings = tuple(setting for family in tried for setting in family.settings)
    return Ranked(measure, settings, by_query, corpus.numbers, belonging)


def choose(
    ranked: Ranked,
    judged: Sequence[Mapping[str, int]],
    *,
    folds: int = 5,
    seed: int = 0,
    alpha: float = 0.01,
) -> TuningReport:
    """The setting that labels speak for, if they do; nothing is saved.

    Args:
        ranked: What there is to choose from.
        judged: Relevance by passage id, for each of its queries.
        folds: As in `tune`.
        seed: As in `tune`.
        alpha: As in `tune`.

    Raises:
        InvalidInputError: A relevant passage is not in the store: then the labels are those of another corpus,
            and what cannot be found teaches nothing.
    """
    wanted = sorted({passage for each in judged for passage, relevance in each.items() if relevance > 0})
    if unknown := [passage for passage in wanted if passage not in ranked.numbers]:
        raise InvalidInputError(
            f"{_some('passage', unknown)} relevant in the qrels and missing from the store; expected the "
            "ref_doc_id of its nodes, or the id of a node that has none"
        )
    worth = np.stack(
        [
            each.worth(
                {ranked.numbers[one]: relevance for one, relevance in own.items() if one in ranked.numbers},
                np.array(list(own.values()), np.int64),
                ranked.measure,
            )
            for each, own in zip(ranked.by_query, judged, strict=True)
        ],
        axis=1,
    )
    return TuningReport.of(ranked.settings, worth, ranked.measure, folds=folds, seed=seed, alpha=alpha)


def check_labels(queries: Mapping[str, str], qrels: Qrels, folds: int, alpha: float) -> None:
    """Refuse labels and arguments that `tune` can make nothing of."""
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
    check_folds(folds, len(queries), "queries")
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError(f"alpha={alpha}; expected a p-value between 0 and 1")


def _some(what: str, ids: list[str]) -> str:
    """`query 'a' is`, or `3 queries are ('a', 'b', …)` in short."""
    if len(ids) == 1:
        return f"{what} {ids[0]!r} is"
    plural = "queries" if what == "query" else f"{what}s"
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} {plural} ({shown}) are"
