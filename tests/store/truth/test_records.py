"""Records are made by short cuts; each must lead where the long way leads."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from llama_index.core.schema import MetadataMode, TextNode

from rag_plugin.store.truth.records import (
    digest_of,
    embedded_text,
    node_from_payload,
    record_digest,
    record_of,
    vector_digest,
)

VALUES = {
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\u2028\u2029",
    "quotes": "\"\\/'",
    "other scripts": "é検😀",
    "a lone surrogate": "x\ud800",
    "the word null": "null and void",
    "None": None,
    "True": True,
    "64 bits": 2**64 - 1,
    "more": 2**64,
    "the least of 64 bits": -(2**63),
    "less": -(2**63) - 1,
    "minus zero": -0.0,
    "a large number": 1.7976931348623157e308,
    "a denormal number": 5e-324,
    "a whole float": 1e15,
    "infinity": float("inf"),
}


def read(payload: bytes) -> Any:
    """What the JSON of a payload says by Python's own parser: the fields, whichever form it has."""
    found = json.loads(payload.decode("utf-8", "surrogatepass"))
    return found[1] if isinstance(found, list) else found


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_payload_is_what_json_writes(value):
    fields = {"id_": "a", "metadata": {"key": value}, "text": "a fox"}
    forms = [
        json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        for form in (fields, ["TextNode", fields])
    ]
    assert record_of(TextNode(**fields)).payload in forms


@pytest.mark.parametrize("value", [*VALUES.values(), 1e-05, 1.5e-07, -1e-09])
def test_a_node_comes_back_with_the_very_values(value):
    node = TextNode(id_="a", metadata={"key": value}, text="a fox")
    payload = record_of(node).payload
    back = node_from_payload(payload, row=1)
    assert back == node
    for read_back in (back.metadata["key"], read(payload)["metadata"]["key"]):
        assert type(read_back) is type(value)
        assert repr(read_back) == repr(value)


def test_nan_stays_nan():
    payload = record_of(TextNode(id_="a", metadata={"key": float("nan")})).payload
    assert math.isnan(node_from_payload(payload, row=1).metadata["key"])


@pytest.mark.parametrize("excluded", [[], ["page"], ["page", "title"], ["title", "page", "page", "unheard"]])
@pytest.mark.parametrize("metadata", [{}, {"page": 3}, {"page": 3, "title": " "}, {"title": ""}])
def test_the_embedded_text_is_what_llama_index_embeds(metadata, excluded):
    node = TextNode(text=" a fox ", metadata=metadata, excluded_embed_metadata_keys=excluded)
    assert embedded_text(node) == node.get_content(MetadataMode.EMBED)


@pytest.mark.parametrize("document", [None, "d\0"])
def test_digests_are_over_length_prefixed_parts(document):
    row = (7).to_bytes(8, "little")
    assert record_digest(7, "é", document, b"{}", b"hash") == digest_of(
        row, "é".encode(), (document or "").encode(), b"{}", b"hash"
    )
    assert vector_digest(7, b"numbers") == digest_of(row, b"numbers")
