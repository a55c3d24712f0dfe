"""``load`` gives LlamaIndex's own class, set up right: proven by what arrives at servers that check it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from counting_model import vector_of
from llama_index.core import MockEmbedding
from provider_server import KEY, ProviderServer
from provider_servers import CohereServer, OpenAIServer, VoyageServer

from rag_plugin import CachedEmbedding, OnnxEmbedding
from rag_plugin.embeddings.providers import load
from rag_plugin.errors import InvalidInputError, MissingExtraError, ModelNotFoundError
from rag_plugin.models.files import locate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What the providers' own packages do with pydantic.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

TEXTS = [f"passage {number}" for number in range(205)]


@pytest.fixture(scope="module")
def voyage_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Voyage's client counts tokens with a tokenizer from the hub: here a small one in the hub's cache."""
    tokenizers = pytest.importorskip("tokenizers")
    constants = pytest.importorskip("huggingface_hub.constants")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cache = tmp_path_factory.mktemp("hub")
    for model in ("voyage-3.5", "voyage-3.5-lite", "voyage-3-large"):
        repository = cache / f"models--voyageai--{model}"
        snapshot = repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        tokenizer.save(str(snapshot / "tokenizer.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield


class RemoteModelContract:
    """What holds for each remote provider; the roles are what its requests call them."""

    provider: str
    model: str
    dimensions: int
    other_dimensions: int | None
    most_texts: int
    query_role: str
    passage_role: str
    key_variable: str
    extra: str
    module: str

    @pytest.fixture
    def server(self) -> Iterator[ProviderServer]:
        raise NotImplementedError

    def load(self, server: ProviderServer, **options: Any) -> Any:
        return load(f"{self.provider}/{self.model}", **self.reach(server), **options)

    def reach(self, server: ProviderServer) -> dict[str, Any]:
        return {"api_key": KEY, "api_base": server.address}

    def expected(self, role: str, text: str, dimensions: int | None = None) -> list[float]:
        return vector_of(self.model, role, text, dimensions or self.dimensions)

    def texts_of(self, request: dict[str, Any]) -> list[str]:
        return request["input"]

    def test_queries_and_passages_are_asked_for_as_what_they_are(self, server) -> None:
        model = self.load(server)
        assert model.get_query_embedding("wing") == self.expected(self.query_role, "wing")
        assert model.get_text_embedding("wing") == self.expected(self.passage_role, "wing")
        assert [self.texts_of(request) for request in server.requests] == [["wing"], ["wing"]]

    def test_many_texts_go_in_batches_that_the_provider_takes(self, server) -> None:
        texts = [f"passage {number}" for number in range(2 * self.most_texts + 1)]
        vectors = self.load(server).get_text_embedding_batch(texts)
        assert vectors[:3] == [self.expected(self.passage_role, text) for text in texts[:3]]
        assert vectors[-1] == self.expected(self.passage_role, texts[-1])
        sizes = [len(self.texts_of(request)) for request in server.requests]
        assert (sum(sizes), max(sizes)) == (len(texts), self.most_texts)

    async def test_the_async_doors_send_the_same(self, server) -> None:
        model = self.load(server)
        assert await model.aget_query_embedding("wing") == self.expected(self.query_role, "wing")
        expected = [self.expected(self.passage_role, text) for text in TEXTS]
        assert await model.aget_text_embedding_batch(TEXTS) == expected

    def test_a_server_that_says_slow_down_is_asked_again(self, server) -> None:
        model = self.load(server)
        server.turn_away(2)
        assert model.get_text_embedding("wing") == self.expected(self.passage_role, "wing")
        assert server.turned_away == 2

    async def test_so_it_is_by_the_async_door(self, server) -> None:
        model = self.load(server)
        server.turn_away(1)
        assert await model.aget_text_embedding("wing") == self.expected(self.passage_role, "wing")
        assert server.turned_away == 1

    def test_another_length_of_vectors_is_asked_of_the_provider(self, server) -> None:
        if self.other_dimensions is None:
            pytest.skip("this model has one length only")
        model = self.load(server, dimensions=self.other_dimensions)
        vector = model.get_text_embedding("wing")
        assert vector == self.expected(self.passage_role, "wing", self.other_dimensions)
        assert len(model.get_query_embedding("wing")) == self.other_dimensions

    def test_a_length_that_the_model_does_not_offer_is_refused_before_anything_is_sent(self, server) -> None:
        with pytest.raises(InvalidInputError, match=f"{self.model} offers .*{self.dimensions}.*found 5000"):
            self.load(server, dimensions=5000)
        assert not server.requests

    def test_the_key_may_stand_in_the_environment(self, server, monkeypatch) -> None:
        monkeypatch.setenv(self.key_variable, KEY)
        model = load(f"{self.provider}/{self.model}", api_base=self.reach(server)["api_base"])
        assert model.get_text_embedding("wing") == self.expected(self.passage_role, "wing")

    def test_a_missing_key_names_the_cure(self, monkeypatch) -> None:
        for variable in ("OPENAI_API_KEY", "COHERE_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY"):
            monkeypatch.delenv(variable, raising=False)
        with pytest.raises(InvalidInputError, match=rf"api_key='…' or set {self.key_variable}"):
            load(f"{self.provider}/{self.model}")

    def test_a_missing_extra_names_the_pip_line(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, self.module, None)
        with pytest.raises(MissingExtraError, match=rf'pip install "rag-plugin\[{self.extra}\]"'):
            load(f"{self.provider}/{self.model}", api_key=KEY)

    def test_options_its_class_does_not_take_are_named(self, server) -> None:
        with pytest.raises(InvalidInputError, match=r"embed_batch_size|options"):
            self.load(server, embed_batch_size="many")

    def test_cached_it_is_asked_once_and_its_key_is_in_no_identity(self, server) -> None:
        model = CachedEmbedding(self.load(server))
        for _ in range(2):
            vectors = model.get_text_embedding_batch(["wing", "drag", "wing"])
            assert vectors[0] == self.expected(self.passage_role, "wing")
            assert model.get_query_embedding("wing") == self.expected(self.query_role, "wing")
        assert len(server.requests) == 2
        assert KEY not in model.identity


class TestOpenAI(RemoteModelContract):
    provider, model, dimensions, other_dimensions = "openai", "text-embedding-3-small", 1536, 256
    most_texts, query_role, passage_role = 100, "any", "any"
    key_variable, extra, module = "OPENAI_API_KEY", "openai", "llama_index.embeddings.openai"

    @pytest.fixture
    def server(self):
        pytest.importorskip("llama_index.embeddings.openai")
        with OpenAIServer() as server:
            yield server

    def reach(self, server):
        return {"api_key": KEY, "api_base": f"{server.address}/v1"}

    def test_the_large_model_and_the_old_one_are_there_too(self, server) -> None:
        large = load("openai/text-embedding-3-large", dimensions=1024, **self.reach(server))
        assert len(large.get_text_embedding("wing")) == 1024
        old = load("openai/text-embedding-ada-002", **self.reach(server))
        assert len(old.get_text_embedding("wing")) == 1536
        assert [request.get("dimensions") for request in server.requests] == [1024, None]

    def test_a_compatible_server_may_have_models_of_its_own(self, server) -> None:
        server.largest = {"local/nomic": 16}
        assert len(load("openai/local/nomic", **self.reach(server)).get_text_embedding("wing")) == 16


class TestCohere(RemoteModelContract):
    provider, model, dimensions, other_dimensions = "cohere", "embed-english-v3.0", 1024, None
    most_texts, query_role, passage_role = 96, "search_query", "search_document"
    key_variable, extra, module = "COHERE_API_KEY", "cohere", "llama_index.embeddings.cohere"

    @pytest.fixture
    def server(self):
        pytest.importorskip("llama_index.embeddings.cohere")
        with CohereServer() as server:
            yield server

    def texts_of(self, request):
        return request["texts"]


@pytest.mark.usefixtures("voyage_tokenizer")
class TestVoyage(RemoteModelContract):
    provider, model, dimensions, other_dimensions = "voyage", "voyage-3.5", 1024, 512
    most_texts, query_role, passage_role = 1000, "query", "document"
    key_variable, extra, module = "VOYAGE_API_KEY", "voyage", "llama_index.embeddings.voyageai"

    @pytest.fixture
    def server(self):
        pytest.importorskip("llama_index.embeddings.voyageai")
        with VoyageServer() as server:
            yield server

    def reach(self, server):
        return {"api_key": KEY, "api_base": f"{server.address}/v1"}


# --- models on this machine ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes a tiny random BERT in a folder of a given name, without a word about its pooling."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("llama_index.embeddings.huggingface")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "query",
        ":",
        "passage",
        "wing",
        "drag",
        "represent",
    ]

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("bert") / name
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join(words))
        transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
        torch.manual_seed(3)
        config = transformers.BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        )
        transformers.BertModel(config).eval().save_pretrained(folder)
        return folder

    return make


def bert_by_hand(folder: Path, text: str, pooling: str) -> np.ndarray:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        tokens = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    vector = tokens[0] if pooling == "cls" else tokens.mean(axis=0)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("name", "query_prefix", "passage_prefix", "pooling"),
    [
        ("e5-small-v2", "query: ", "passage: ", "mean"),
        ("bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", "", "cls"),
        ("all-MiniLM-L6-v2", "", "", "mean"),
    ],
)
def test_a_huggingface_model_gets_the_prefixes_and_the_pooling_it_was_trained_with(
    bert, name, query_prefix, passage_prefix, pooling
) -> None:
    folder = bert(name)
    model = load(f"huggingface/{folder}")
    assert type(model).__name__ == "HuggingFaceEmbedding"
    np.testing.assert_allclose(
        model.get_query_embedding("wing"), bert_by_hand(folder, query_prefix + "wing", pooling), atol=1e-5
    )
    np.testing.assert_allclose(
        model.get_text_embedding("wing"), bert_by_hand(folder, passage_prefix + "wing", pooling), atol=1e-5
    )
    assert np.linalg.norm(model.get_text_embedding("drag")) == pytest.approx(1, abs=1e-5)


def test_an_option_that_is_given_wins_over_what_is_known(bert) -> None:
    folder = bert("e5-base-v2")
    model = load(f"huggingface/{folder}", query_instruction="this ", max_length=8)
    np.testing.assert_allclose(
        model.get_query_embedding("wing"), bert_by_hand(folder, "this wing", "mean"), atol=1e-5
    )
    assert model.max_length == 8


def test_a_retrained_folder_has_another_identity(bert) -> None:
    folder = bert("mine")
    before = CachedEmbedding(load(f"huggingface/{folder}")).identity
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "retrained": True}))
    assert CachedEmbedding(load(f"huggingface/{folder}")).identity != before


def test_a_model_that_is_not_here_names_the_cure() -> None:
    pytest.importorskip("llama_index.embeddings.huggingface")
    with pytest.raises(ModelNotFoundError, match="hf download nobody/nothing"):
        load("huggingface/nobody/nothing")


@pytest.mark.models
def test_an_onnx_model_is_ours() -> None:
    model = load("onnx/bge-small-en-v1.5", max_length=64)
    assert isinstance(model, OnnxEmbedding)
    assert model.max_length == 64
    assert load("onnx/bge-small-en-v1.5", dimensions=384).fingerprint == OnnxEmbedding().fingerprint
    with pytest.raises(InvalidInputError, match="offers only 384 dimensions, found 128"):
        load("onnx/bge-small-en-v1.5", dimensions=128)


@pytest.mark.models
def test_an_onnx_model_that_is_not_listed_may_be_cut(tmp_path) -> None:
    files = locate("bge-small-en-v1.5", kind="embedding")
    for path in (files.onnx, files.tokenizer):
        (tmp_path / path.name).symlink_to(path)
    model = load(f"onnx/{tmp_path}", pooling="cls", dimensions=32)
    assert len(model.get_query_embedding("wing")) == 32


def test_an_embedding_model_passes_through_unchanged() -> None:
    model = MockEmbedding(embed_dim=3)
    assert load(model) is model


@pytest.mark.parametrize("name", ["", "bge-small", "openai/", "azure/text-embedding-3-small"])
def test_a_name_without_a_provider_lists_the_providers(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"openai/…, cohere/…, voyage/…"):
        load(name)
