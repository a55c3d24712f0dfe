"""What users may import, and the errors they may catch."""

import inspect

import pytest

import rag_plugin
from rag_plugin import embeddings, errors, query_transform

PUBLIC = [
    "CachedEmbedding",
    "ContextWindow",
    "CrossEncoderRerank",
    "FeedbackTransform",
    "FolderReader",
    "HyDETransform",
    "HybridRetriever",
    "HybridStore",
    "IngestReport",
    "MemoryCache",
    "OnnxEmbedding",
    "QueryExpansionTransform",
    "RagPluginError",
    "RecursiveChunker",
    "RedisCache",
    "SqliteCache",
    "SpellingTransform",
    "aingest",
    "build_query_engine",
    "check_embeddings",
    "evaluate",
    "generate_queries",
    "ingest",
    "tune",
]

# Reachable by name, not by `import *`: they need the packages of an extra.
WITH_EXTRA = ["QdrantHybridStore", "index_corpus"]

EMBEDDINGS = [
    "CachedEmbedding",
    "ClipEmbedding",
    "OnnxEmbedding",
    "as_llama_index_cache",
    "embed_to_file",
    "facts_about",
    "load",
    "recommend",
]

QUERY_TRANSFORM = [
    "DecompositionTransform",
    "ExpandedQuery",
    "FeedbackTransform",
    "HyDETransform",
    "LLMQueryTransform",
    "Leg",
    "QueryExpansionTransform",
    "SpellingTransform",
    "StepBackTransform",
    "TransformChain",
    "Variant",
    "VariantKind",
]

# name: (parent in our tree, the built-in a user would catch), as drawn at the top of errors.py.
TREE = {
    "InvalidInputError": ("RagPluginError", ValueError),
    "FilterError": ("InvalidInputError", ValueError),
    "UnsupportedQueryError": ("InvalidInputError", ValueError),
    "EmbeddingMismatchError": ("InvalidInputError", ValueError),
    "StoreError": ("RagPluginError", Exception),
    "StorePathError": ("StoreError", OSError),
    "StoreLockedError": ("StoreError", TimeoutError),
    "StoreReadOnlyError": ("StoreError", PermissionError),
    "StoreClosedError": ("StoreError", RuntimeError),
    "StoreFormatError": ("StoreError", Exception),
    "StoreWriteError": ("StoreError", OSError),
    "StoreUnreachableError": ("StoreError", ConnectionError),
    "StoreCorruptedError": ("StoreError", Exception),
    "MissingExtraError": ("RagPluginError", ImportError),
    "ModelError": ("RagPluginError", RuntimeError),
    "ModelNotFoundError": ("ModelError", FileNotFoundError),
    "DeadlineExceededError": ("RagPluginError", TimeoutError),
    "IngestionError": ("RagPluginError", RuntimeError),
}


def test_the_public_names_are_these() -> None:
    assert sorted(rag_plugin.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC + WITH_EXTRA)
def test_a_public_name_resolves_and_says_what_it_is_for(name: str) -> None:
    value = getattr(rag_plugin, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


def test_the_names_of_the_room_of_embeddings_are_these() -> None:
    assert sorted(embeddings.__all__) == sorted(EMBEDDINGS)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_name_of_embeddings_resolves_and_says_what_it_is_for(name: str) -> None:
    value = getattr(embeddings, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


def test_the_names_of_the_door_of_query_transforms_are_these() -> None:
    assert query_transform.__all__ == QUERY_TRANSFORM


def test_dir_lists_every_public_name() -> None:
    assert {*PUBLIC, *WITH_EXTRA} <= set(dir(rag_plugin))
    assert set(EMBEDDINGS) <= set(dir(embeddings))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HybridStor'"):
        _ = rag_plugin.HybridStor
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = embeddings.lod


def test_the_version_is_a_release_number() -> None:
    assert all(part.isdigit() for part in rag_plugin.__version__.split("."))


def test_the_error_tree_holds_exactly_the_errors_drawn() -> None:
    found = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert found == {"RagPluginError", *TREE}


@pytest.mark.parametrize(("name", "parent", "builtin"), [(n, p, b) for n, (p, b) in TREE.items()])
def test_an_error_stands_below_its_parent_and_a_builtin(name: str, parent: str, builtin: type) -> None:
    error = getattr(errors, name)
    assert getattr(errors, parent) in error.__bases__
    assert issubclass(error, builtin)


@pytest.mark.parametrize("name", ["RagPluginError", *TREE])
def test_an_error_is_in_the_picture_at_the_top_of_its_module(name: str) -> None:
    picture = [line for line in inspect.getsource(errors).splitlines() if line.startswith("# ")]
    assert any(name in line.replace("(", " ").split() for line in picture)


def test_a_missing_extra_names_the_command_that_cures_it() -> None:
    error = errors.MissingExtraError("RedisCache", extra="redis", package="redis")
    assert 'pip install "rag-plugin[redis]"' in str(error)
    assert isinstance(error, ImportError)
