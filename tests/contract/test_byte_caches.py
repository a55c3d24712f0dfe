"""The contract of a byte cache, held against memory, a SQLite file, and Redis over TCP, TLS and a password."""

from __future__ import annotations

import shutil
import subprocess
import uuid

import pytest
from byte_cache_contract import ByteCacheContract
from redis_server import RedisServer, require_redis_server

from rag_plugin import MemoryCache, RedisCache, SqliteCache


class TestMemoryCache(ByteCacheContract):
    copies_share_entries = False

    @pytest.fixture
    def make(self):
        return MemoryCache


class TestSqliteCache(ByteCacheContract):
    @pytest.fixture
    def make(self, tmp_path):
        return lambda **options: SqliteCache(tmp_path / "folder" / "cache.db", **options)


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory):
    require_redis_server()
    with RedisServer(tmp_path_factory.mktemp("redis"), "--requirepass", "hush", password="hush") as server:
        yield server


@pytest.fixture(scope="module")
def tls_url(tmp_path_factory):
    """A server that speaks TLS only, and a URL that trusts its certificate."""
    require_redis_server()
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed: nothing makes a certificate")
    folder = tmp_path_factory.mktemp("tls")
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=127.0.0.1"
    )
    subprocess.run(
        [*request.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    files = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem")
    options = ("--port", "0", "--tls-port", "{port}", *files, "--tls-auth-clients", "no")
    with RedisServer(folder, *options, scheme="rediss") as server:
        yield f"{server.url}?ssl_ca_certs={folder / 'cert.pem'}"


class TestRedisCache(ByteCacheContract):
    @pytest.fixture
    def make(self, plain_server):
        namespace = uuid.uuid4().hex
        return lambda **options: RedisCache(plain_server.url, namespace=namespace, **options)


class TestRedisCacheOverTls(ByteCacheContract):
    @pytest.fixture
    def make(self, tls_url):
        namespace = uuid.uuid4().hex
        return lambda **options: RedisCache(tls_url, namespace=namespace, timeout_s=5, **options)
