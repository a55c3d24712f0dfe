"""Embedding services that fail for a while, for good, or ask for patience."""

from __future__ import annotations

import time

import pytest
from llama_index.core import Document
from llama_index.core.rate_limiter import BaseRateLimiter

from rag_plugin.errors import IngestionError
from rag_plugin.store.hybrid_store import HybridStore
from tests.ingestion.pipeline_samples import CHUNKER, HashEmbedding, assert_same, run, text_of


class StatusError(Exception):
    """What an HTTP client raises."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"HTTP {status}")
        self.response = type("Response", (), {"status_code": status, "headers": headers})()


class Failing(HashEmbedding):
    """Raises what it is given, one a request, before it works."""

    failures: list = []

    def _get_text_embeddings(self, texts):
        if self.failures:
            raise self.failures.pop(0)
        return super()._get_text_embeddings(texts)


class Counting(BaseRateLimiter):
    def __init__(self) -> None:
        self.asked = 0

    def acquire(self, num_tokens: int = 0) -> None:
        self.asked += 1

    async def async_acquire(self, num_tokens: int = 0) -> None:
        self.asked += 1


@pytest.fixture
def store():
    with HybridStore(metric="dot") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("rag_plugin.retries._FIRST_WAIT_S", 0.001)


DOCUMENTS = [Document(id_=f"d{i}", text=text_of(30, i)) for i in range(8)]


@pytest.mark.parametrize(
    "failure",
    [StatusError(429), StatusError(503), ConnectionResetError("gone"), TimeoutError("slow")],
    ids=["too many requests", "unavailable", "connection reset", "timed out"],
)
def test_a_service_that_comes_back_costs_no_document_and_no_second_embedding(store, failure):
    embedding = Failing(failures=[failure] * 3, embed_batch_size=5)
    report = run(DOCUMENTS, store, embedding, max_retries=3)
    assert (report.added, report.failed) == (8, ())
    assert len(embedding.embedded) == report.embedded
    assert_same(store, DOCUMENTS)


def test_a_service_that_stays_away_ends_the_run_at_once_and_the_next_run_goes_on(store):
    embedding = Failing(embed_batch_size=5)
    run(DOCUMENTS[:3], store, embedding)
    embedding.failures = [StatusError(503)] * 100
    with pytest.raises(IngestionError, match=r"after 3 tries.*HTTP 503.*run again"):
        run(DOCUMENTS, store, embedding, max_retries=2)
    assert len(embedding.failures) == 97
    assert store.ref_doc_ids() == {"d0", "d1", "d2"}
    embedding.failures = []
    run(DOCUMENTS, store, embedding)
    assert_same(store, DOCUMENTS)


def test_a_refusal_that_will_not_change_is_not_repeated(store):
    embedding = Failing(failures=[StatusError(400)], embed_batch_size=100)
    report = run(DOCUMENTS[:1], store, embedding)
    assert [failed.doc_id for failed in report.failed] == ["d0"]
    assert embedding.failures == []


def test_the_pause_a_service_asks_for_is_kept(store):
    embedding = Failing(failures=[StatusError(429, **{"retry-after": "1"})])
    started = time.monotonic()
    assert run(DOCUMENTS[:1], store, embedding).added == 1
    assert time.monotonic() - started >= 1


def test_a_longer_pause_than_a_minute_is_not_waited_for(store):
    embedding = Failing(failures=[StatusError(429, **{"retry-after": "3600"})])
    with pytest.raises(IngestionError, match="after 1 tries"):
        run(DOCUMENTS[:1], store, embedding)


def test_a_batch_that_fails_half_way_embeds_no_chunk_twice(store):
    documents = [*DOCUMENTS, Document(id_="bad", text="POISON")]
    embedding = HashEmbedding(embed_batch_size=1)
    report = run(documents, store, embedding, batch_size=1000)
    assert [failed.doc_id for failed in report.failed] == ["bad"]
    assert len(embedding.embedded) == len(set(embedding.embedded)) == report.embedded


def test_llamaindex_own_rate_limiter_is_asked_before_every_request(store):
    limiter = Counting()
    chunks = len(CHUNKER(DOCUMENTS))
    run(DOCUMENTS, store, HashEmbedding(rate_limiter=limiter, embed_batch_size=4), batch_size=10_000)
    assert limiter.asked == -(-chunks // 4)
