"""Collections to measure on: passages, queries and what was judged, from the formats people have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import TextNode

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.trec import add_judgement, lines_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Passage:
    """One passage of a collection.

    Attributes:
        id: Its id, the one that qrels use.
        text: Its text.
        title: Its title, or empty.
        metadata: Whatever else the collection says of it.
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_text(self) -> str:
        """Title and text joined by one blank, as BEIR's own baselines search them."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Collection:
    """Passages, queries and judgements that belong together.

    Attributes:
        name: What reports call it.
        passages: All passages.
        queries: Text by query id; each has at least one judgement.
        qrels: Relevance by query id and passage id; 0 is judged not relevant.
        query_metadata: Whatever else the collection says of a query (its answers, for one), by query id.
    """

    name: str
    passages: tuple[Passage, ...]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    query_metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_nodes(self) -> list[TextNode]:
        """One LlamaIndex node per passage: its id, and title and text as the text; no vector yet."""
        return [TextNode(id_=passage.id, text=passage.full_text) for passage in self.passages]

    def __repr__(self) -> str:
        """Name and sizes; the texts would fill pages."""
        judged = sum(len(judgements) for judgements in self.qrels.values())
        return (
            f"Collection({self.name!r}, {len(self.passages)} passages, {len(self.queries)} queries, "
            f"{judged} judgements)"
        )


def load_beir(
    folder: str | Path,
    *,
    split: str = "test",
    queries: str = "queries.jsonl",
    name: str | None = None,
    strict: bool = True,
) -> Collection:
    """Load a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`.

    Only the queries that the split judges are kept.

    Args:
        folder: Where the three files are.
        split: Which file under `qrels/`, without its `.tsv`.
        queries: Which file holds the queries.
        name: What reports call it; the folder's name if None.
        strict: Refuse judgements of passages the corpus lacks. With False they are kept, and count as
            relevant passages that nobody can find.

    Raises:
        InvalidInputError: A file is missing or empty, a line has another form, an id comes twice, or the
            qrels name a query (or, if strict, a passage) that isn't there.

    Source: Thakur et al., "BEIR: a heterogeneous benchmark for zero-shot evaluation of information
    retrieval models", NeurIPS 2021.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidInputError(
            f"{root} is not a folder; expected one with corpus.jsonl, queries.jsonl and qrels/{split}.tsv"
        )
    passages = tuple(
        Passage(record_id, _text(record, "text", place), _text(record, "title", place, ""), _extra(record))
        for record_id, record, place in _records(root / "corpus.jsonl")
    )
    texts: dict[str, str] = {}
    metadata: dict[str, Mapping[str, Any]] = {}
    for query_id, record, place in _records(root / queries):
        texts[query_id] = _text(record, "text", place)
        if extra := _extra(record):
            metadata[query_id] = extra
    known = {passage.id for passage in passages} if strict else None
    qrels = _read_beir_qrels(root / "qrels" / f"{split}.tsv", texts, known, queries)
    return Collection(
        name or root.name,
        passages,
        {query_id: texts[query_id] for query_id in qrels},
        qrels,
        {query_id: metadata[query_id] for query_id in qrels if query_id in metadata},
    )


def _read_beir_qrels(
    path: Path, queries: Mapping[str, str], passages: set[str] | None, queries_file: str
) -> dict[str, dict[str, int]]:
    expected = "BEIR qrels: 'query-id<TAB>corpus-id<TAB>score' per line, after a header"
    qrels: dict[str, dict[str, int]] = {}
    for row, (place, line) in enumerate(lines_of(path, expected)):
        fields = line.split("\t")
        if len(fields) != 3:
            raise InvalidInputError(f"{place}: found {len(fields)} tab-separated fields; expected {expected}")
        query_id, passage_id, relevance = fields
        if row == 0 and not relevance.strip().lstrip("-").isdigit():
            continue  # the header
        if query_id not in queries:
            raise InvalidInputError(
                f"{place}: query {query_id!r} is not in {queries_file}. "
                "If this split keeps its queries elsewhere, name the file: load_beir(…, queries='…')."
            )
        if passages is not None and passage_id not in passages:
            raise InvalidInputError(
                f"{place}: passage {passage_id!r} is not in corpus.jsonl. "
                "To keep it as one that nobody can find: load_beir(…, strict=False)."
            )
        add_judgement(qrels, query_id, passage_id, whole_number(relevance, place, "score"), place)
    if not qrels:
        raise InvalidInputError(f"{path} holds no judgement; expected {expected}")
    return qrels


def _records(path: Path) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Each record of a JSON Lines file: its id, itself, and the place to name in an error."""
    expected = 'one JSON object per line, with "_id" and "text"'
    first_seen: dict[str, str] = {}
    for place, line in lines_of(path, expected):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInputError(f"{place}: not JSON ({error}); expected {expected}") from error
        if not isinstance(record, dict) or not isinstance(record.get("_id"), (str, int)):
            raise InvalidInputError(f'{place}: no "_id"; expected {expected}')
        record_id = str(record["_id"])
        if record_id in first_seen:
            raise InvalidInputError(f"{place}: _id {record_id!r} was already on {first_seen[record_id]}")
        first_seen[record_id] = place
        yield record_id, record, place
    if not first_seen:
        raise InvalidInputError(f"{path} is empty; expected {expected}")


def _text(record: Mapping[str, Any], key: str, place: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InvalidInputError(f'{place}: "{key}" is {value!r}; expected a string')
    return value


def _extra(record: Mapping[str, Any]) -> dict[str, Any]:
    extra = record.get("metadata")
    return dict(extra) if isinstance(extra, dict) else {}


def load_embedding_qa(dataset: object, *, name: str | None = None) -> Collection:
    """Load LlamaIndex's `EmbeddingQAFinetuneDataset`: the object, or the JSON file it saves.

    Each of a query's `relevant_docs` gets relevance 1.

    Args:
        dataset: An object with `queries`, `corpus` and `relevant_docs`, or the path of its JSON file.
        name: What reports call it; the file's stem, or "embedding-qa", if None.

    Raises:
        InvalidInputError: The file is missing or isn't such a dataset, or a relevant id is not in its corpus.
    """
    where, parts = _llama_dataset(
        dataset, ("queries", "corpus", "relevant_docs"), "EmbeddingQAFinetuneDataset"
    )
    texts, corpus, relevant = parts["queries"], parts["corpus"], parts["relevant_docs"]
    qrels: dict[str, dict[str, int]] = {}
    for query_id, doc_ids in relevant.items():
        if query_id not in texts:
            raise InvalidInputError(f"{where}: relevant_docs names query {query_id!r}, which queries lacks")
        for doc_id in dict.fromkeys(doc_ids):
            if doc_id not in corpus:
                raise InvalidInputError(
                    f"{where}: query {query_id!r} names passage {doc_id!r}, which corpus lacks"
                )
            qrels.setdefault(query_id, {})[doc_id] = 1
    if not qrels:
        raise InvalidInputError(f"{where}: relevant_docs names no passage; expected some")
    passages = tuple(Passage(doc_id, text) for doc_id, text in corpus.items())
    queries = {query_id: texts[query_id] for query_id in qrels}
    return Collection(name or _stem(dataset, "embedding-qa"), passages, queries, qrels)


def load_labelled_rag(dataset: object, *, name: str | None = None) -> Collection:
    """Load LlamaIndex's `LabelledRagDataset`: the object, or the JSON file it saves.

    The passages are the distinct reference contexts, so this measures on those alone, without the rest of
    the corpus they came from. Their ids are made of their text; an example without contexts is left out.
    The reference answer is kept as the query's metadata `answers`.

    Args:
        dataset: An object with `examples`, or the path of its JSON file.
        name: What reports call it; the file's stem, or "labelled-rag", if None.

    Raises:
        InvalidInputError: The file is missing or isn't such a dataset, or no example has a context.
    """
    where, parts = _llama_dataset(dataset, ("examples",), "LabelledRagDataset")
    passages: dict[str, Passage] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    metadata: dict[str, Mapping[str, Any]] = {}
    for number, example in enumerate(parts["examples"]):
        values = example if isinstance(example, dict) else vars(example)
        query, contexts = values.get("query"), values.get("reference_contexts") or ()
        if not isinstance(query, str) or not all(isinstance(context, str) for context in contexts):
            raise InvalidInputError(
                f"{where}, example {number}: expected a string 'query' and strings in 'reference_contexts'"
            )
        if not contexts:
            continue
        query_id = f"q{number}"
        queries[query_id] = query
        for context in contexts:
            passage_id = hashlib.sha256(context.encode()).hexdigest()[:16]
            passages.setdefault(passage_id, Passage(passage_id, context))
            qrels.setdefault(query_id, {})[passage_id] = 1
        if answer := values.get("reference_answer"):
            metadata[query_id] = {"answers": [answer]}
    if not qrels:
        raise InvalidInputError(
            f"{where}: no example has reference_contexts; they are what retrieval should find"
        )
    return Collection(
        name or _stem(dataset, "labelled-rag"), tuple(passages.values()), queries, qrels, metadata
    )


def _llama_dataset(dataset: object, keys: Sequence[str], kind: str) -> tuple[str, dict[str, Any]]:
    """Where the dataset is from, for errors, and the parts asked for.

    LlamaIndex has moved these classes between packages and dropped them from core in 0.14, so this goes by
    their attributes and never imports them.
    """
    if isinstance(dataset, (str, Path)):
        where, text = str(dataset), "\n".join(line for _, line in lines_of(dataset, f"a saved {kind}"))
        try:
            loaded = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInputError(f"{where}: not JSON ({error}); expected a saved {kind}") from error
        parts = loaded if isinstance(loaded, dict) else {}
    else:
        where = f"the {type(dataset).__name__}"
        parts = {key: getattr(dataset, key) for key in keys if hasattr(dataset, key)}
    missing = [key for key in keys if key not in parts]
    if missing:
        raise InvalidInputError(
            f"{where} has no {', '.join(missing)}; expected a {kind} with {', '.join(keys)}"
        )
    return where, parts


def _stem(dataset: object, otherwise: str) -> str:
    return Path(dataset).stem if isinstance(dataset, (str, Path)) else otherwise
