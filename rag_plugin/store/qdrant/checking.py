"""check() of a collection: are its points whole, and do both kinds of vectors agree with the texts?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qdrant_client import models

from rag_plugin.errors import InvalidInputError, StoreError
from rag_plugin.store.audit import CheckReport
from rag_plugin.store.qdrant.points import DOCUMENT, RESERVED, Facts, node_of, point_id, sparse_vector
from rag_plugin.store.qdrant.settings import SPARSE, CollectionSettings
from rag_plugin.store.truth.records import digest_of, embedded_text, record_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from rag_plugin.store.qdrant.collection import Collection

_SAMPLED: Final = 256
"""Points that are looked at where not all are: they come in the order of their ids, which are as good as random."""
_TOLD: Final = 20
"""Points named at most."""
_PROBES: Final = 20
"""Terms whose document frequency is counted by hand."""
_TOLERANCE: Final = 1e-3
"""Relative, of what a server keeps in single precision."""
_AGAIN: Final = "Add the node again."


async def check_collection(collection: Collection, *, deep: bool) -> CheckReport:
    """Verify a collection: its counts and indexes, and a sample of its points; ``deep`` reads every point.

    Raises:
        StoreUnreachableError: The server does not answer.
    """
    settings = await collection.settings(afresh=True)
    if settings is None:
        return CheckReport(True, (), {"nodes": 0})
    collection.changed()
    checked = {"nodes": int((await collection.call("count", exact=True)).count)}
    if not settings.ours:  # another store's: there is nothing of ours to compare with
        return CheckReport(True, (), checked)
    problems = [problem async for problem in _counts(collection, settings, checked["nodes"])]
    checked["points"] = 0
    frequencies: Counter[str] = Counter()
    async for page in _points(collection, deep=deep):
        checked["points"] += len(page)
        problems += _of_points(page, settings, collection, frequencies)
    if deep and not problems:  # which both say what the texts hold, so those must be sound
        problems += [problem async for problem in _frequencies(collection, frequencies, checked)]
    if len(problems) > _TOLD:
        problems[_TOLD:] = [f"{len(problems) - _TOLD} problems more."]
    return CheckReport(not problems, tuple(problems), checked)


async def _counts(collection: Collection, settings: CollectionSettings, nodes: int) -> AsyncIterator[str]:
    try:
        counted = (await collection.statistics()).count
    except (ValueError, TypeError) as error:
        yield f"The lengths of the passages cannot be added up ({error}): no search by words works. {_AGAIN}"
        counted = nodes
    if counted != nodes:
        yield (
            f"{nodes - counted} of {nodes} points were written by another store: their words are not found. "
            "Add their nodes again."
        )
    has_words = models.Filter(must=[models.HasVectorCondition(has_vector=SPARSE)])
    with_words = int((await collection.call("count", count_filter=has_words, exact=True)).count)
    if with_words != nodes:
        yield f"{nodes - with_words} of {nodes} points have no BM25 vector. Add their nodes again."
    missing = await collection.missing_indexes()
    if missing:
        yield (
            f"There is no payload index on {', '.join(missing)}: filters on it read every point. Adding a node through "
            "a store that was just opened makes it."
        )
    if not settings.averages:
        yield "The collection does not say which average length its BM25 vectors were made with. compact() mends it."


async def _points(collection: Collection, *, deep: bool) -> AsyncIterator[list[models.Record]]:
    if deep:
        async for page in collection.pages(with_payload=True, with_vectors=True):
            yield page
        return
    sample, _ = await collection.call("scroll", limit=_SAMPLED, with_payload=True, with_vectors=True)
    yield sample


def _of_points(
    page: Sequence[models.Record],
    settings: CollectionSettings,
    collection: Collection,
    frequencies: Counter[str],
) -> Iterator[str]:
    for record in page:
        payload = record.payload or {}
        try:
            facts = Facts.in_payload(payload)
            if facts is None:
                continue  # counted already
            node = node_of(payload)
            terms = collection.analyzer.terms_batch([embedded_text(node)])[0]
            stored = record_of(node)
            metadata = {key: value for key, value in stored.metadata.items() if key not in RESERVED}
            digest = digest_of(stored.payload, bytes.fromhex(facts.text_hash)).hex()
            compared = (
                ("the node", digest == facts.digest),
                ("the id of the point", str(record.id) == point_id(node.node_id)),
                ("the id of the document", str(payload.get(DOCUMENT)) == str(node.ref_doc_id)),
                ("the metadata for filters", all(payload.get(key) == metadata[key] for key in metadata)),
                ("the embedding", _has_embedding(record, facts, settings)),
                ("the BM25 vector", _has_words(record, facts, terms, settings)),
            )
        except (StoreError, InvalidInputError, KeyError, ValueError, TypeError) as error:
            yield f"Point {record.id} cannot be read ({type(error).__name__}: {error}). Add its node again."
            continue
        frequencies.update(set(terms))
        wrong = [what for what, is_right in compared if not is_right]
        if wrong:
            yield f"Node {node.node_id!r}: {' and '.join(wrong)} is not what was written. {_AGAIN}"


def _has_embedding(record: models.Record, facts: Facts, settings: CollectionSettings) -> bool:
    """Whether it has the dimension and the length that it came with."""
    vectors: Any = record.vector
    vector = np.asarray(
        vectors.get(settings.dense_name, ()) if isinstance(vectors, dict) else vectors, np.float64
    )
    norm = facts.norm if settings.metric != "cosine" else float(facts.norm > 0)  # of a direction only
    return vector.shape == (settings.dimension,) and bool(
        np.isclose(np.linalg.norm(vector), norm, rtol=_TOLERANCE, atol=_TOLERANCE)
    )


def _has_words(
    record: models.Record, facts: Facts, terms: Sequence[str], settings: CollectionSettings
) -> bool:
    """Whether it is the one that the text's terms make, with an average length that readers know of."""
    vectors: Any = record.vector
    found = vectors.get(SPARSE) if isinstance(vectors, dict) else None
    if found is None or facts.length != len(terms) or facts.average not in settings.averages:
        return False
    expected = dict(zip(*sparse_vector(terms, settings.bm25, facts.average), strict=True))
    values = dict(zip(found.indices, found.values, strict=True))
    return values.keys() == expected.keys() and all(
        abs(values[index] - expected[index]) <= _TOLERANCE * expected[index] for index in expected
    )


async def _frequencies(
    collection: Collection, counted: Counter[str], checked: dict[str, int]
) -> AsyncIterator[str]:
    """Compare what the server's idf says of some terms, frequent ones and rare ones, with what was counted."""
    ordered = [term for term, _ in counted.most_common()]
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(_PROBES, len(ordered))).astype(int)).tolist()
    probes = [ordered[place] for place in chosen]
    if (collection.options.shard_number or 1) > 1:  # each shard has an idf of its own
        return
    checked["terms"] = len(probes)
    for term, found in (await collection.document_frequencies(probes)).items():
        if found != counted[term]:
            yield (
                f"The server counts {found} passages with {term!r}, and {counted[term]} have it. If nothing was "
                f"written meanwhile, call compact()."
            )
