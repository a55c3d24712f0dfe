"""Texts and pictures in one space and one store, by a tiny random CLIP that is made here."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
image_module = pytest.importorskip("PIL.Image")

from llama_index.core.schema import ImageNode, TextNode  # noqa: E402 - after what may be missing
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters  # noqa: E402

from rag_plugin import CachedEmbedding, HybridRetriever, HybridStore  # noqa: E402
from rag_plugin.embeddings.clip import ClipEmbedding  # noqa: E402
from rag_plugin.embeddings.providers import load  # noqa: E402
from rag_plugin.errors import InvalidInputError, ModelNotFoundError  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 2 layers with random weights, in transformers' layout."""
    folder = tmp_path_factory.mktemp("clip")
    characters = sorted({character for word in COLOURS for character in word})
    vocabulary = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    text = {"vocab_size": len(vocabulary), "max_position_embeddings": 16, "eos_token_id": len(vocabulary) - 1}
    torch.manual_seed(11)
    config = transformers.CLIPConfig(
        text_config={**shape, **text, "bos_token_id": len(vocabulary) - 2},
        vision_config={**shape, "image_size": SIDE, "patch_size": 8},
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "crop_size": side}
        )
    )
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ClipEmbedding:
    return load(f"clip/{folder}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        image_module.new("RGB", (40, 48), colour).save(place / f"{name}.png")
    return {name: place / f"{name}.png" for name in COLOURS}


def by_hand(folder: Path, picture: Path) -> np.ndarray:
    """Preprocessing by NumPy and the model by its parts. A picture of one colour is the same at any size."""
    mean, deviation = (
        np.array([0.48145466, 0.4578275, 0.40821073]),
        np.array([0.26862954, 0.26130258, 0.27577711]),
    )
    with image_module.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((SIDE, SIDE)), np.float64) / 255
    pixels = ((pixels - mean) / deviation).transpose(2, 0, 1)[None]
    clip = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        seen = clip.vision_model(pixel_values=torch.tensor(pixels, dtype=torch.float32))
        vector = clip.visual_projection(seen.pooler_output)[0].numpy()
    return vector / np.linalg.norm(vector)


def test_a_picture_is_its_projected_vector_at_length_one(model, folder, pictures) -> None:
    for picture in pictures.values():
        np.testing.assert_allclose(model.get_image_embedding(picture), by_hand(folder, picture), atol=1e-5)


def test_a_text_has_length_one_and_the_same_bits_in_any_batch(model) -> None:
    alone = [model.get_text_embedding(text) for text in COLOURS]
    np.testing.assert_allclose(model.get_text_embedding_batch(list(COLOURS)), alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    assert model.get_query_embedding("red") == alone[0]


def test_a_picture_may_be_bytes(model, pictures) -> None:
    given = BytesIO(pictures["red"].read_bytes())
    assert model.get_image_embedding(given) == model.get_image_embedding(pictures["red"])
    assert model.get_image_embedding(given) == model.get_image_embedding(str(pictures["red"]))


async def test_the_async_doors_give_the_same(model, pictures) -> None:
    paths = list(pictures.values())
    assert await model.aget_image_embedding(paths[0]) == model.get_image_embedding(paths[0])
    assert await model.aget_image_embedding_batch(paths) == model.get_image_embedding_batch(paths)
    assert await model.aget_query_embedding("red") == model.get_query_embedding("red")
    await asyncio.gather(*(model.aget_text_embedding(text) for text in COLOURS))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_text_finds_pictures_and_texts_in_one_store(model, pictures, tmp_path, where) -> None:
    images = [
        ImageNode(
            id_=f"picture {name}",
            image_path=str(path),
            image=base64.b64encode(path.read_bytes()).decode(),
            metadata={"kind": "image"},
            embedding=model.get_image_embedding(path),
        )
        for name, path in pictures.items()
    ]
    texts = [
        TextNode(
            id_=f"text {name}", text=name, metadata={"kind": "text"}, embedding=model.get_text_embedding(name)
        )
        for name in COLOURS
    ]
    with HybridStore(None if where == "memory" else tmp_path / "store") as store:
        store.add([*images, *texts])
        query = np.array(model.get_query_embedding("red"))
        expected = sorted([*images, *texts], key=lambda node: -(query @ np.array(node.embedding)))
        retriever = HybridRetriever(store, embed_model=model, mode="dense", similarity_top_k=8)
        hits = retriever.retrieve("red")
        assert [hit.node.node_id for hit in hits] == [node.node_id for node in expected]
        only_images = MetadataFilters(filters=[MetadataFilter(key="kind", value="image")])
        found = retriever.with_filters(only_images).retrieve("red")
        assert [hit.node.node_id for hit in found] == [
            node.node_id for node in expected if isinstance(node, ImageNode)
        ]
        best = found[0].node
        assert isinstance(best, ImageNode)
        name = best.node_id.removeprefix("picture ")
        assert best.image_path == str(pictures[name])
        assert model.get_image_embedding(best.resolve_image()) == model.get_image_embedding(pictures[name])


def test_a_picture_finds_itself(model, pictures) -> None:
    with HybridStore() as store:
        store.add(
            [
                ImageNode(id_=name, image_path=str(path), embedding=model.get_image_embedding(path))
                for name, path in pictures.items()
            ]
        )
        from llama_index.core.vector_stores.types import VectorStoreQuery

        for name, path in pictures.items():
            asked = VectorStoreQuery(query_embedding=model.get_image_embedding(path), similarity_top_k=1)
            assert store.query(asked).ids == [name]


def test_what_is_longer_than_the_context_is_cut_and_can_be_counted_before(model) -> None:
    assert model.max_length == 16
    assert model.token_counts(["red", "red " * 20])[0] == 5
    assert model.token_counts(["red " * 20])[0] == 62
    assert len(model.get_text_embedding("red " * 20)) == 24


def test_texts_are_cached_like_those_of_any_model(model) -> None:
    cached = CachedEmbedding(model)
    for _ in range(2):
        assert cached.get_text_embedding("red") == model.get_text_embedding("red")
    assert cached.stats().embedded == 1


def test_it_travels_to_another_process(model) -> None:
    other = pickle.loads(pickle.dumps(model))
    assert other.get_text_embedding("red") == model.get_text_embedding("red")


def test_a_file_that_is_no_picture_is_named(model, tmp_path) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    for path in (tmp_path / "note.png", tmp_path / "nothing.png"):
        with pytest.raises(InvalidInputError, match=rf"{path.name} cannot be read"):
            model.get_image_embedding(path)
    with pytest.raises(InvalidInputError, match="the picture cannot be read"):
        model.get_image_embedding(BytesIO(b"not a picture"))


def test_a_model_that_is_not_here_names_the_cure() -> None:
    with pytest.raises(ModelNotFoundError, match="hf download nobody/clip"):
        load("clip/nobody/clip").get_text_embedding("red")


def test_a_length_of_vectors_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="one length only"):
        load("clip/nobody/clip", dimensions=100)
    with pytest.raises(InvalidInputError, match="only 512"):
        load("clip/openai/clip-vit-base-patch32", dimensions=100)
