"""What has to be known about a model to use it right: context length, pooling, prefixes.

A model folder in sentence-transformers' layout says so itself; what it leaves out comes from a short table of
model families; what nobody says stays unknown.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rag_plugin.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

Pooling: TypeAlias = Literal["cls", "mean"]

UNSTATED_MAX_LENGTH = 512
"""Context of BERT and all its common descendants; taken when no file of the model says otherwise."""

_ABSURD_LENGTH = 1_000_000
"""Transformers writes 1e30 as ``model_max_length`` when it does not know it."""

_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""These count positions from ``pad_token_id + 1`` = 2, so two of ``max_position_embeddings`` are never used.
Source: ``create_position_ids_from_input_ids`` of the models in transformers."""


@dataclass(frozen=True)
class ModelFacts:
    """How a model wants to be used.

    Attributes:
        max_length: Context in tokens, special tokens included.
        pooling: How token vectors become one vector; ``None`` when nothing says so.
        query_prefix: Put before a query.
        passage_prefix: Put before a passage.
    """

    max_length: int = UNSTATED_MAX_LENGTH
    pooling: Pooling | None = None
    query_prefix: str = ""
    passage_prefix: str = ""


_BGE_QUERY = "Represent this sentence for searching relevant passages: "

_FAMILIES: tuple[tuple[str, ModelFacts], ...] = (
    # Source: model cards of BAAI/bge-*-en-v1.5 and BAAI/bge-m3 ("no instruction needed").
    (r"bge-(small|base|large)-en(-v1\.5)?", ModelFacts(pooling="cls", query_prefix=_BGE_QUERY)),
    (r"bge-m3", ModelFacts(max_length=8192, pooling="cls")),
    # Source: model cards of intfloat/e5-*-v2 and intfloat/multilingual-e5-*.
    (
        r"(multilingual-)?e5-(small|base|large)(-v2)?",
        ModelFacts(pooling="mean", query_prefix="query: ", passage_prefix="passage: "),
    ),
    # Source: model card of sentence-transformers/all-MiniLM-L6-v2.
    (r"all-MiniLM-L(6|12)-v[12]", ModelFacts(pooling="mean")),
)


def facts_of(name: str, folder: Path) -> ModelFacts:
    """What is known of the model ``name`` in ``folder``: its own files first, then its family.

    Raises:
        ModelError: A configuration file is not the JSON object it should be.
    """
    facts = family_facts(name)
    return replace(
        facts,
        max_length=_max_length(folder) or facts.max_length,
        pooling=_pooling(folder) or facts.pooling,
        **_prompts(folder),
    )


def family_facts(name: str) -> ModelFacts:
    """What is known of the family that ``name``, without an owner before it, belongs to."""
    spelled = name.replace("_", "-")
    for pattern, facts in _FAMILIES:
        if re.fullmatch(pattern, spelled, re.IGNORECASE):
            return facts
    return ModelFacts()


def _max_length(folder: Path) -> int | None:
    """The shortest limit that any of the model's files states."""
    config = _read(folder / "config.json")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _PADDED_POSITIONS:
        positions -= 2
    stated = (
        positions,
        _read(folder / "sentence_bert_config.json").get("max_seq_length"),
        _read(folder / "tokenizer_config.json").get("model_max_length"),
    )
    limits = [
        int(length) for length in stated if isinstance(length, int | float) and 0 < length < _ABSURD_LENGTH
    ]
    return min(limits, default=None)


def _pooling(folder: Path) -> Pooling | None:
    """Pooling as sentence-transformers writes it down, where it is one that we know."""
    stated = _read(folder / "1_Pooling" / "config.json")
    if stated.get("pooling_mode_cls_token"):
        return "cls"
    if stated.get("pooling_mode_mean_tokens"):
        return "mean"
    return None


def _prompts(folder: Path) -> dict[str, Any]:
    """Prefixes as sentence-transformers writes them down, by the names of :class:`ModelFacts`."""
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts") or {}
    found = {
        "query_prefix": prompts.get("query"),
        "passage_prefix": prompts.get("passage") or prompts.get("document"),
    }
    return {name: prefix for name, prefix in found.items() if prefix}


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not readable JSON ({error}). Fetch the model's files again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, a JSON object was expected.")
    return content
