"""Collections are read as their files say, and a bad line is named."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.datasets import load_beir, load_embedding_qa, load_labelled_rag

if TYPE_CHECKING:
    from pathlib import Path

CORPUS = [
    {"_id": "p1", "title": "Kettles", "text": "A kettle boils water.", "metadata": {"page": 3}},
    {"_id": "p2", "title": "", "text": "Tea needs water."},
    {"_id": "p3", "text": "A cup holds tea."},
]
QUERIES = [
    {"_id": "q1", "text": "what boils water", "metadata": {"answers": ["a kettle"]}},
    {"_id": "q2", "text": "what holds tea"},
    {"_id": "q3", "text": "never judged"},
]
QRELS = "query-id\tcorpus-id\tscore\nq2\tp3\t1\nq1\tp1\t2\nq1\tp2\t0\n"


def json_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "kitchen"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(json_lines(CORPUS))
    (root / "queries.jsonl").write_text(json_lines(QUERIES))
    (root / "qrels" / "test.tsv").write_text(QRELS)
    return root


def test_a_beir_folder_becomes_a_collection(folder: Path) -> None:
    collection = load_beir(folder)
    assert collection.name == "kitchen"
    assert [(passage.id, passage.title, passage.text) for passage in collection.passages] == [
        ("p1", "Kettles", "A kettle boils water."),
        ("p2", "", "Tea needs water."),
        ("p3", "", "A cup holds tea."),
    ]
    assert collection.passages[0].metadata == {"page": 3}
    assert collection.queries == {"q2": "what holds tea", "q1": "what boils water"}
    assert collection.qrels == {"q2": {"p3": 1}, "q1": {"p1": 2, "p2": 0}}
    assert collection.query_metadata == {"q1": {"answers": ["a kettle"]}}
    assert repr(collection) == "Collection('kitchen', 3 passages, 2 queries, 3 judgements)"


def test_nodes_carry_the_passage_id_and_title_with_text(folder: Path) -> None:
    nodes = load_beir(folder).to_nodes()
    assert [(node.node_id, node.text) for node in nodes] == [
        ("p1", "Kettles A kettle boils water."),
        ("p2", "Tea needs water."),
        ("p3", "A cup holds tea."),
    ]


def test_a_collection_is_frozen(folder: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_beir(folder).name = "other"  # type: ignore[misc]


def test_another_split_can_have_its_own_queries_file(folder: Path) -> None:
    (folder / "queries-train.jsonl").write_text(json_lines([{"_id": "t1", "text": "train me"}]))
    (folder / "qrels" / "train.tsv").write_text("t1\tp1\t1\n")
    collection = load_beir(folder, split="train", queries="queries-train.jsonl", name="mine")
    assert (collection.name, collection.queries, collection.qrels) == (
        "mine",
        {"t1": "train me"},
        {"t1": {"p1": 1}},
    )


def test_ids_that_are_numbers_and_a_byte_order_mark_are_read(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text("\ufeff" + json_lines([{"_id": 7, "text": "seven"}]), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("q1\t7\t1\n")
    assert [passage.id for passage in load_beir(folder).passages] == ["7"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "p1", "text": "x"}\n{"_id"\n', "line 2: not JSON"),
        ("corpus.jsonl", '{"id": "p1", "text": "x"}\n', 'line 1: no "_id"'),
        ("corpus.jsonl", '["p1", "x"]\n', 'line 1: no "_id"'),
        ("corpus.jsonl", '{"_id": "p1"}\n', 'line 1: "text" is None; expected a string'),
        ("corpus.jsonl", '{"_id": "p1", "text": "x", "title": 3}\n', 'line 1: "title" is 3'),
        (
            "corpus.jsonl",
            '{"_id": "p1", "text": "x"}\n\n{"_id": "p1", "text": "y"}\n',
            "line 3: _id 'p1' was already on .*line 1",
        ),
        ("corpus.jsonl", "", "is empty"),
        ("queries.jsonl", '{"_id": "q1", "text": ["x"]}\n', 'line 1: "text" is'),
        ("qrels/test.tsv", "q1 0 p1 1\n", "line 1: found 1 tab-separated fields"),
        ("qrels/test.tsv", "q1\tp1\t1\nq1\tp2\thigh\n", "line 2: score is 'high'"),
        ("qrels/test.tsv", "q1\tp1\t1\nq1\tp1\t2\n", "line 2: .* judged twice"),
        ("qrels/test.tsv", "q1\tp1\t1\nq9\tp1\t1\n", "line 2: query 'q9' is not in queries.jsonl"),
        ("qrels/test.tsv", "q1\tp9\t1\n", "line 1: passage 'p9' is not in corpus.jsonl.*strict=False"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "no judgement"),
    ],
)
def test_a_bad_line_is_named_with_its_file(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(InvalidInputError, match=f"{file}.*{message}"):
        load_beir(folder)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a folder"):
        load_beir(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"dev\.tsv is not a file"):
        load_beir(folder, split="dev")


def test_a_judged_passage_that_the_corpus_lacks_is_kept_if_asked_for(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\tp9\t1\n")
    assert load_beir(folder, strict=False).qrels == {"q1": {"p9": 1}}


EMBEDDING_QA = {
    "queries": {"q1": "what boils water", "q2": "no passage"},
    "corpus": {"n1": "A kettle boils water.", "n2": "Tea needs water."},
    "relevant_docs": {"q1": ["n1", "n1"], "q2": []},
    "mode": "text",
}


def test_an_embedding_qa_dataset_is_read_from_its_file_and_as_an_object(tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(EMBEDDING_QA, indent=4))
    of_file, of_object = load_embedding_qa(file), load_embedding_qa(SimpleNamespace(**EMBEDDING_QA))
    assert (of_file.name, of_object.name) == ("pairs", "embedding-qa")
    assert dataclasses.replace(of_file, name="embedding-qa") == of_object
    assert of_file.qrels == {"q1": {"n1": 1}}
    assert of_file.queries == {"q1": "what boils water"}
    assert [passage.id for passage in of_file.passages] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevant_docs": {"q1": ["n9"]}}, "names passage 'n9', which corpus lacks"),
        ({"relevant_docs": {"q9": ["n1"]}}, "names query 'q9', which queries lacks"),
        ({"relevant_docs": {}}, "names no passage"),
    ],
)
def test_an_embedding_qa_dataset_that_does_not_fit_together_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_embedding_qa(SimpleNamespace(**(EMBEDDING_QA | change)))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"queries": {}}')
    with pytest.raises(InvalidInputError, match="expected a EmbeddingQAFinetuneDataset"):
        load_embedding_qa(file)
    file.write_text("{")
    with pytest.raises(InvalidInputError, match="not JSON"):
        load_labelled_rag(file)
    with pytest.raises(InvalidInputError, match="the int has no"):
        load_labelled_rag(3)


def test_a_labelled_rag_dataset_searches_its_distinct_contexts(tmp_path: Path) -> None:
    examples = [
        {
            "query": "what boils water",
            "reference_contexts": ["A kettle boils water.", "Tea needs water."],
            "reference_answer": "a kettle",
        },
        {"query": "what needs water", "reference_contexts": ["Tea needs water."], "reference_answer": ""},
        {"query": "no context", "reference_contexts": None},
    ]
    file = tmp_path / "rag_dataset.json"
    file.write_text(json.dumps({"examples": examples}))
    collection = load_labelled_rag(file)
    kettle, tea = collection.passages
    assert (kettle.text, tea.text) == ("A kettle boils water.", "Tea needs water.")
    assert collection.queries == {"q0": "what boils water", "q1": "what needs water"}
    assert collection.qrels == {"q0": {kettle.id: 1, tea.id: 1}, "q1": {tea.id: 1}}
    assert collection.query_metadata == {"q0": {"answers": ["a kettle"]}}
    as_object = SimpleNamespace(examples=[SimpleNamespace(**example) for example in examples])
    assert load_labelled_rag(as_object, name="rag_dataset") == collection


def test_a_labelled_rag_dataset_without_contexts_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="reference_contexts"):
        load_labelled_rag(SimpleNamespace(examples=[{"query": "q", "reference_contexts": []}]))
    with pytest.raises(InvalidInputError, match="example 0: expected a string 'query'"):
        load_labelled_rag(SimpleNamespace(examples=[{"query": None, "reference_contexts": ["x"]}]))
