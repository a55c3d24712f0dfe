"""Public data sets for checking embedding models, read from a folder where a user has put them.

Layout, each part optional: `stsb/sts-test.csv`, `sick/SICK.txt`, `paws-qqp/dev_and_test.tsv`,
`typos/codespell-dictionary.txt`, each as its authors publish it. None of them ships with this package.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.probes import Pair, Triplet
from rag_plugin.evaluation.trec import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Item = TypeVar("Item")

_STSB: Final = Path("stsb/sts-test.csv")
_SICK: Final = Path("sick/SICK.txt")
_PAWS: Final = Path("paws-qqp/dev_and_test.tsv")
_CODESPELL: Final = Path("typos/codespell-dictionary.txt")

_FRAME: Final = "The word on the card was {}."
"""Fits any part of speech: the list holds all of them."""

_MISSPELT: Final = re.compile(r"([a-z]{6,})->([a-z]{6,})")
"""One wrong word and its one correction. Shorter words are often other words, misspelt or not."""


@dataclass(frozen=True)
class ProbeFiles:
    """Samples of what a folder holds; what is not there is empty.

    Attributes:
        scored: STS-B test: pairs with their similarity as people judged it, 0 to 5.
        entailed: SICK: pairs of which the first entails the second.
        contradicted: SICK: pairs that contradict each other.
        same: PAWS: questions of the same words and the same meaning.
        swapped: PAWS: questions of the same words and another meaning.
        misspelt: codespell: a word in a sentence, misspelt, and another word instead.
        missing: Files looked for and not found.
    """

    scored: tuple[tuple[Pair, float], ...] = ()
    entailed: tuple[Pair, ...] = ()
    contradicted: tuple[Pair, ...] = ()
    same: tuple[Pair, ...] = ()
    swapped: tuple[Pair, ...] = ()
    misspelt: tuple[Triplet, ...] = ()
    missing: tuple[str, ...] = ()


def find_probes(probes: str | Path | None) -> Path | None:
    """The folder of data sets: the one given, else `probes/` in the folder that `RAG_PLUGIN_DATA` names.

    Raises:
        InvalidInputError: A folder was given and is none.
    """
    if probes is not None:
        folder = Path(probes)
        if not folder.is_dir():
            raise InvalidInputError(f"there is no folder {str(folder)!r} to read probes from")
        return folder
    stated = os.environ.get("RAG_PLUGIN_DATA")
    folder = Path(stated or "", "probes")
    return folder if stated and folder.is_dir() else None


def read_probes(folder: Path, max_pairs: int) -> ProbeFiles:
    """A sample of at most `max_pairs` pairs of each data set in a folder, the same each time.

    Raises:
        InvalidInputError: The folder holds none of them, or a file is not what its name says.
    """
    missing = tuple(str(file) for file in (_STSB, _SICK, _PAWS, _CODESPELL) if not (folder / file).is_file())
    if len(missing) == 4:
        raise InvalidInputError(f"{folder} holds no probes. Expected one or more of: {', '.join(missing)}.")
    half = max(2, max_pairs // 2)
    sick = _sick(folder / _SICK) if str(_SICK) not in missing else {}
    paws = _paws(folder / _PAWS) if str(_PAWS) not in missing else {}
    return ProbeFiles(
        scored=_sample(_stsb(folder / _STSB), max_pairs) if str(_STSB) not in missing else (),
        entailed=_sample(sick.get("ENTAILMENT", ()), half),
        contradicted=_sample(sick.get("CONTRADICTION", ()), half),
        same=_sample(paws.get("1", ()), half),
        swapped=_sample(paws.get("0", ()), half),
        misspelt=_misspelt(folder / _CODESPELL, max_pairs) if str(_CODESPELL) not in missing else (),
        missing=missing,
    )


def _sample(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Items drawn without replacement, in their own order."""
    if len(items) <= count:
        return tuple(items)
    chosen = np.random.default_rng(0).choice(len(items), size=count, replace=False)
    return tuple(items[place] for place in sorted(chosen))


def _stsb(path: Path) -> list[tuple[Pair, float]]:
    # genre, file, year, id, score, sentence1, sentence2, and for some genres sources and licences.
    return [(Pair(row[5], row[6]), _number(place, row[4])) for place, row in _rows(path, 7)]


def _sick(path: Path) -> dict[str, list[Pair]]:
    # pair_ID, sentence_A, sentence_B, relatedness_score, entailment_judgment
    found: dict[str, list[Pair]] = {}
    for _, row in _rows(path, 5):
        found.setdefault(row[4].strip(), []).append(Pair(row[1], row[2]))
    return found


def _paws(path: Path) -> dict[str, list[Pair]]:
    # id, sentence1, sentence2, label
    found: dict[str, list[Pair]] = {}
    for place, row in _rows(path, 4):
        pair = Pair(_unquoted(place, row[1]), _unquoted(place, row[2]))
        found.setdefault(row[3].strip(), []).append(pair)
    return found


def _unquoted(place: str, text: str) -> str:
    """The text of a Python bytes literal, as which PAWS-QQP is handed round; other text as it is."""
    if not re.match(r"b['\"]", text):
        return text
    try:
        return bytes(ast.literal_eval(text)).decode()
    except (SyntaxError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{place}: {text[:60]!r} is no bytes literal ({error})") from error


def _misspelt(path: Path, count: int) -> tuple[Triplet, ...]:
    """Misspellings, each with another word of the sample that begins with another letter."""
    matches = (_MISSPELT.fullmatch(line) for _, line in lines_of(path, "lines of wrong->right"))
    found = [match.groups() for match in matches if match]
    chosen = _sample(found, count)
    shuffled = [chosen[place][1] for place in np.random.default_rng(1).permutation(len(chosen))]
    triplets = []
    for place, (wrong, right) in enumerate(chosen):
        others = (*shuffled[place:], *shuffled[:place])
        other = next((word for word in others if word[0] != right[0]), None)
        if other is not None:
            triplets.append(Triplet(*(_FRAME.format(word) for word in (right, wrong, other))))
    return tuple(triplets)


def _rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Rows of a tab-separated file in which quotes mean nothing, each with its place; a header is a row too."""
    for place, text in lines_of(path, "tab-separated text"):
        row = text.split("\t")
        if len(row) < columns:
            raise InvalidInputError(f"{place} has {len(row)} columns; expected {columns} or more")
        yield place, row


def _number(place: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInputError(f"{place} has the score {text!r}; expected a number") from error
