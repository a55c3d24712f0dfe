"""Nodes for the tests of Qdrant, what two stores must have in common, and a client that fails now and then."""

from __future__ import annotations

import random

import numpy as np
from llama_index.core.schema import TextNode
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse


def nodes(count: int, *, seed: int = 0) -> list[TextNode]:
    rng = np.random.default_rng(seed)
    return [
        TextNode(
            id_=f"n{i}",
            text=f"passage {i} of {seed} speaks of topic {i % 7}",
            embedding=rng.random(6).tolist(),
        )
        for i in range(count)
    ]


def assert_same_contents(store, local) -> None:
    found, expected = store.get_nodes(), local.get_nodes()
    assert [node.node_id for node in found] == [node.node_id for node in expected]
    assert [node.to_dict(exclude={"embedding"}) for node in found] == [
        node.to_dict(exclude={"embedding"}) for node in expected
    ]
    if found:
        np.testing.assert_allclose(
            [node.embedding for node in found], [node.embedding for node in expected], rtol=1e-6
        )


class Flaky:
    """A client whose calls fail now and then: before they arrive, or after, when the answer is lost."""

    def __init__(self, client: AsyncQdrantClient, seed: int, share: float) -> None:
        self._target = client
        self._client = client._client
        self._rng = random.Random(seed)
        self.share = share
        self.failures = 0

    def __getattr__(self, name):
        method = getattr(self._target, name)

        async def call(**arguments):
            fate = self._rng.random()
            if fate < self.share / 2:
                self.failures += 1
                raise ResponseHandlingException(ConnectionResetError("never arrived"))
            answer = await method(**arguments)
            if fate < self.share:
                self.failures += 1
                raise UnexpectedResponse(503, "answer lost", b"", {})
            return answer

        return call
