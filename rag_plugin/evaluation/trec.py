"""TREC's two text formats, run and qrels, read and written: what every evaluation tool exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.measures import Qrels, Run, ranking

if TYPE_CHECKING:
    from collections.abc import Iterator


def lines_of(path: str | Path, expected: str) -> Iterator[tuple[str, str]]:
    """Each non-empty line of a UTF-8 text file with the place to name in an error (`PATH, line 3`).

    Args:
        path: The file.
        expected: What the file should hold, for the error.

    Raises:
        InvalidInputError: The file is missing, is no file, or is not UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidInputError(f"{file} is not a file; expected {expected}")
    with file.open(encoding="utf-8-sig") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if stripped := line.rstrip("\r\n"):
                    yield f"{file}, line {number}", stripped
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{file} is not UTF-8 text ({error}); expected {expected}") from error


def whole_number(text: str, place: str, what: str) -> int:
    """The integer that a field holds.

    Raises:
        InvalidInputError: It holds something else.
    """
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInputError(f"{place}: {what} is {text!r}; expected a whole number") from error


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements from a TREC qrels file: `query_id 0 doc_id relevance`, separated by blanks.

    Raises:
        InvalidInputError: The file is missing or empty, a line has another form, or a pair is judged twice.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, line in lines_of(path, "TREC qrels: 'query_id 0 doc_id relevance' per line"):
        fields = line.split()
        if len(fields) != 4:
            raise InvalidInputError(
                f"{place}: found {len(fields)} fields; expected 4: 'query_id 0 doc_id relevance'. "
                "A BEIR qrels file (3 fields, tab-separated) is read by load_beir."
            )
        query_id, _, doc_id, relevance = fields
        add_judgement(qrels, query_id, doc_id, whole_number(relevance, place, "relevance"), place)
    if not qrels:
        raise InvalidInputError(f"{path} holds no judgement; expected 'query_id 0 doc_id relevance' per line")
    return qrels


def add_judgement(
    qrels: dict[str, dict[str, int]], query_id: str, doc_id: str, relevance: int, place: str
) -> None:
    """Put one judgement into the qrels.

    Raises:
        InvalidInputError: The pair is judged already.
    """
    judgements = qrels.setdefault(query_id, {})
    if doc_id in judgements:
        raise InvalidInputError(
            f"{place}: query {query_id!r} and passage {doc_id!r} are judged twice; expected once"
        )
    judgements[doc_id] = relevance


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write a TREC qrels file.

    Raises:
        InvalidInputError: An id holds white space or is empty, which the format can't carry.
    """
    with Path(path).open("w", encoding="utf-8", newline="\n") as stream:
        for query_id, judgements in qrels.items():
            for doc_id, relevance in judgements.items():
                stream.write(f"{_field(query_id)} 0 {_field(doc_id)} {int(relevance)}\n")


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """What a system returned, from a TREC run file: `query_id Q0 doc_id rank score tag`.

    The order is that of the scores; the rank column is not read, as in trec_eval.

    Raises:
        InvalidInputError: The file is missing, a line has another form, a score is no number, or a query
            returns a doc id twice.
    """
    run: dict[str, dict[str, float]] = {}
    for place, line in lines_of(path, "a TREC run: 'query_id Q0 doc_id rank score tag' per line"):
        fields = line.split()
        if len(fields) != 6:
            raise InvalidInputError(
                f"{place}: found {len(fields)} fields; expected 6: 'query_id Q0 doc_id rank score tag'"
            )
        query_id, _, doc_id, _, text, _ = fields
        try:
            score = float(text)
        except ValueError as error:
            raise InvalidInputError(f"{place}: score is {text!r}; expected a number") from error
        if np.isnan(score):
            raise InvalidInputError(f"{place}: score is NaN; expected a number")
        hits = run.setdefault(query_id, {})
        if doc_id in hits:
            raise InvalidInputError(f"{place}: query {query_id!r} returns {doc_id!r} twice; expected once")
        hits[doc_id] = score
    return run


def write_run(path: str | Path, run: Run, *, tag: str = "rag_plugin") -> None:
    """Write a TREC run file that trec_eval orders as `run` is ordered.

    Scores are written in full, so reading them back gives the same numbers. A run that is only an order
    gets its number of hits, counting down, as scores. A query without hits has no line: the format can't
    say that it was asked.

    Raises:
        InvalidInputError: An id or the tag holds white space or is empty, a score is NaN, or a doc id is
            returned twice.
    """
    tag_field = _field(tag)
    with Path(path).open("w", encoding="utf-8", newline="\n") as stream:
        for query_id, hits in run.items():
            ordered = ranking(hits, query_id)
            if isinstance(hits, Mapping):
                scores = [float(hits[doc_id]) for doc_id in ordered]
            else:
                scores = [float(left) for left in range(len(ordered), 0, -1)]
            for rank, (doc_id, score) in enumerate(zip(ordered, scores, strict=True), start=1):
                stream.write(f"{_field(query_id)} Q0 {_field(doc_id)} {rank} {score!r} {tag_field}\n")


def _field(text: str) -> str:
    if not text or len(text.split()) != 1 or text != text.strip():
        raise InvalidInputError(
            f"{text!r} can't stand in a TREC file, where white space separates the fields; "
            "expected an id without any. Rename it, or use to_csv."
        )
    return text
