"""What can happen to a file: shared, full, locked, damaged, gone, another program's."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rag_plugin import SqliteCache
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def cache(path: Path) -> Iterator[SqliteCache]:
    with SqliteCache(path, retry_after_s=0.01) as cache:
        yield cache


def test_another_process_finds_what_was_written(cache: SqliteCache, path: Path) -> None:
    cache.set_many({b"a": b"1"})
    script = f"from rag_plugin import SqliteCache; print(SqliteCache({str(path)!r}).get_many([b'a', b'b']))"
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "{b'a': b'1'}"


def test_it_outlives_a_process_that_is_killed(path: Path) -> None:
    script = (
        f"import os, signal; from rag_plugin import SqliteCache; cache = SqliteCache({str(path)!r})\n"
        "cache.set_many({b'a': b'1'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    with SqliteCache(path) as cache:
        assert cache.get_many([b"a"]) == {b"a": b"1"}


def test_a_full_file_drops_the_oldest_and_keeps_its_size(path: Path) -> None:
    limit = 2 << 20
    with SqliteCache(path, max_bytes=limit) as cache:
        for batch in range(60):
            cache.set_many({b"%d %d" % (batch, number): os.urandom(1_000) for number in range(100)})
        kept = [batch for batch in range(60) if cache.get_many([b"%d %d" % (batch, 99)])]
    assert kept == list(range(kept[0], 60))
    assert 10 <= len(kept) < 21
    assert path.stat().st_size < 1.2 * limit


def test_a_limit_that_holds_nothing_is_no_endless_loop(path: Path) -> None:
    with SqliteCache(path, max_bytes=1) as cache:
        cache.set_many({b"a": b"1"})
        assert cache.get_many([b"a"]) == {}
        assert cache.stats().failures == 0


def test_flipped_bits_are_misses_never_values(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = {b"%d" % number: os.urandom(200) for number in range(50)}
    with SqliteCache(path) as cache:
        cache.set_many(entries)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE entries SET value = zeroblob(208) WHERE key IN (x'31', x'32')")
            other.execute("UPDATE entries SET value = 'text' WHERE key = x'33'")
            other.execute(
                "UPDATE entries SET value = (SELECT value FROM entries WHERE key = x'34') WHERE key = x'35'"
            )
        other.close()
        found = cache.get_many(entries)
        damaged = {b"1", b"2", b"3", b"5"}
        assert found == {key: value for key, value in entries.items() if key not in damaged}
        assert cache.stats().damaged == 4
        cache.set_many(entries)
        assert cache.get_many(entries) == entries
    assert "4 of 50 values are not what was written there" in caplog.text


def test_a_file_of_garbage_finds_nothing_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(os.urandom(50_000))
    with SqliteCache(path, retry_after_s=0.001) as cache, caplog.at_level(logging.WARNING):
        for _ in range(5):
            cache.set_many({b"a": b"1"})
            assert cache.get_many([b"a"]) == {}
        assert cache.stats().failures > 0
    [record] = caplog.records
    assert str(path) in record.getMessage()
    assert "costs time only" in record.getMessage()
    assert path.stat().st_size == 50_000


def test_pages_torn_out_under_its_feet_cost_entries_only(cache: SqliteCache, path: Path) -> None:
    entries = {b"%d" % number: os.urandom(2_000) for number in range(200)}
    cache.set_many(entries)
    cache.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(os.urandom(size // 3))
    found = cache.get_many(entries)
    assert all(entries[key] == value for key, value in found.items())
    cache.set_many({b"a": b"1"})


def test_a_file_that_is_deleted_in_use_is_made_again(cache: SqliteCache, path: Path) -> None:
    cache.set_many({b"a": b"1"})
    cache.close()
    for file in path.parent.iterdir():
        file.unlink()
    assert cache.get_many([b"a"]) == {}
    cache.set_many({b"a": b"2"})
    assert cache.get_many([b"a"]) == {b"a": b"2"}


def test_a_locked_file_takes_no_longer_than_its_limit(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SqliteCache(path, timeout_s=0.1, retry_after_s=0.01) as cache:
        cache.set_many({b"a": b"1"})
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        cache.set_many({b"b": b"2"})
        assert cache.stats().failures == 1
        assert "locked" in caplog.text
        holder.execute("ROLLBACK")
        holder.close()


def test_a_place_that_cannot_be_written_finds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with SqliteCache(tmp_path / "file" / "cache.db") as cache:
        cache.set_many({b"a": b"1"})
        assert cache.get_many([b"a"]) == {}
    assert "Going on without" in caplog.text


def test_a_newer_format_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SqliteCache(path) as cache:
        cache.set_many({b"a": b"1"})
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with SqliteCache(path) as cache:
        assert cache.get_many([b"a"]) == {}
    assert "format 99 cannot be read by this version" in caplog.text


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE accounts (id)")
    other.close()
    with pytest.raises(InvalidInputError, match="another program"):
        SqliteCache(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a folder"):
        SqliteCache(tmp_path)
