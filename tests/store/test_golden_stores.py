"""A store of every format ever released opens, with everything in it."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from rag_plugin import HybridStore
from rag_plugin.errors import StoreFormatError
from rag_plugin.store.truth import migrations, schema
from tests.store.golden.make_golden import golden_nodes

GOLDEN = sorted((Path(__file__).parent / "golden").glob("format-*.zip"))


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        return Path(opened.extract("store.db", folder))


def test_there_is_a_golden_store_of_the_present_format():
    assert f"format-{migrations.FORMAT_VERSION}.zip" in [path.name for path in GOLDEN]


@pytest.mark.parametrize("archive", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_store_opens_with_everything_in_it(archive, tmp_path):
    backup = unpacked(archive, tmp_path)
    with HybridStore.restore(backup, tmp_path / "store", bm25="okapi") as store:
        assert store.check(deep=True).ok
        assert [node.to_dict() for node in store.get_nodes()] == [node.to_dict() for node in golden_nodes()]
        assert store.stats()["embedding"] == "golden model"
        fresh = HybridStore(bm25="okapi")
        fresh.add(golden_nodes())
        vector = np.random.default_rng(5).standard_normal(16).tolist()
        for mode in ("default", "sparse", "hybrid"):
            asked = VectorStoreQuery(
                query_embedding=vector,
                query_str="otter stone",
                similarity_top_k=20,
                mode=VectorStoreQueryMode(mode),
            )
            assert store.query(asked).ids == fresh.query(asked).ids


def test_an_older_format_is_brought_up_to_date_by_a_writer_and_refused_to_a_reader(tmp_path, monkeypatch):
    with HybridStore(tmp_path / "s") as store:
        store.add(golden_nodes())

    newer = migrations.FORMAT_VERSION + 1
    steps = []
    for module in (migrations, schema):
        monkeypatch.setattr(module, "FORMAT_VERSION", newer)
    monkeypatch.setitem(migrations.MIGRATIONS, newer - 1, lambda connection: steps.append(newer))
    with pytest.raises(StoreFormatError, match="Open it once for writing"):
        HybridStore(tmp_path / "s", read_only=True)
    with HybridStore(tmp_path / "s") as store:
        assert store.count == len(golden_nodes())
    with HybridStore(tmp_path / "s", read_only=True) as reader:
        assert reader.count == len(golden_nodes())
    assert steps == [newer]


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    with HybridStore(tmp_path / "s") as store:
        store.add(golden_nodes())
    newer = migrations.FORMAT_VERSION + 1

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM nodes")
        raise OSError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "FORMAT_VERSION", newer)
        patch.setattr(schema, "FORMAT_VERSION", newer)
        patch.setitem(migrations.MIGRATIONS, newer - 1, fails)
        with pytest.raises(OSError, match="went away"):
            HybridStore(tmp_path / "s")
    with HybridStore(tmp_path / "s") as store:
        assert store.count == len(golden_nodes())


def test_a_newer_format_is_refused_by_its_number(tmp_path):
    HybridStore(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s" / "store.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreFormatError, match="99"):
        HybridStore(tmp_path / "s")
