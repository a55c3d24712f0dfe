"""A query, passages and the model by hand, for the tests of the reranker."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import onnxruntime
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, TextNode
from tokenizers import Tokenizer

from rag_plugin import CrossEncoderRerank
from rag_plugin.models.files import locate

a_reranker = partial(CrossEncoderRerank, backend="onnx")  # what :func:`logit_by_hand` computes with


QUERY = "how does a slipstream change the lift of a wing"


TEXTS = [
    "Heat conduction in slabs.",
    "A propeller slipstream increases the lift of the wing behind it.",
    "Wings carry an aircraft.",
    "The slipstream of a lorry saves fuel for the car behind it.",
]


def hits_of(texts: list[str], cls: type[NodeWithScore] = NodeWithScore) -> list[NodeWithScore]:
    """Hits in the order of ``texts``, scores falling from 1."""
    return [
        cls(node=TextNode(id_=f"n{place}", text=text), score=1.0 - place / len(texts))
        for place, text in enumerate(texts)
    ]


@cache
def plain_model() -> tuple[Tokenizer, onnxruntime.InferenceSession]:
    """Tokenizer and session without anything of ours around them."""
    files = locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = str(files.graph)
    return tokenizer, onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logit_by_hand(query: str, passage: str) -> float:
    """One pair through tokenizers and ONNX Runtime, the plain way."""
    tokenizer, session = plain_model()
    pair = tokenizer.encode(query, passage)
    ids, types = np.array([pair.ids]), np.array([pair.type_ids])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
    return float(session.run(None, given)[0][0, 0])


class Events(BaseEventHandler):
    """Keeps what it is told."""

    seen: list[Any]

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)
