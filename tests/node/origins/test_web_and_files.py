"""http:// by obstore against a web server; a directory by fsspec in its child process."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from cache_worker.origins import OriginObject, open_origin
from cacheop.api.dataset import Mount
from cacheop.api.errors import OriginError, UserError
from tests.fakes.web_server import WebServer
from tests.suites.origin import OriginSuite, Place, content, digest, listed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.node


def directory_place(mount_point: str, root: Path) -> Place:
    def put(key: str, body: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    return Place(mount_point, {}, put=put, delete=lambda key: (root / key).unlink())


class TestHttp(OriginSuite):
    tells_of_pieces = True

    @pytest.fixture
    def place(self, tmp_path: Path):
        root = tmp_path / "www" / "data set"
        root.mkdir(parents=True)
        with WebServer(root.parent) as server:
            yield directory_place(f"{server.url}/data%20set/", root)


class TestHttpWeakEtags(TestHttp):
    tells_of_pieces = True

    @pytest.fixture
    def place(self, tmp_path: Path):
        with WebServer(tmp_path, weak=True) as server:
            yield directory_place(f"{server.url}/", tmp_path)


class TestHttpNoEtags(TestHttp):
    @pytest.fixture
    def place(self, tmp_path: Path):
        with WebServer(tmp_path, etags=False) as server:
            yield directory_place(f"{server.url}/", tmp_path)

    def let_the_clock_move(self) -> None:
        time.sleep(1.1)


class TestHttpWithoutConditions(TestHttp):
    """A server that has etags but does not look at If-Match."""

    tells_of_pieces = True

    @pytest.fixture
    def place(self, tmp_path: Path):
        with WebServer(tmp_path, conditions=False) as server:
            yield directory_place(f"{server.url}/", tmp_path)


class TestFiles(OriginSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "files"
        root.mkdir()
        return directory_place(f"file://{root}/", root)

    def let_the_clock_move(self) -> None:
        time.sleep(1.1)


def test_a_server_without_ranges_says_so(tmp_path: Path) -> None:
    with WebServer(tmp_path, ranges=False) as server:
        (tmp_path / "x").write_bytes(content(1, 1000))
        mount = Mount(f"{server.url}/x")
        obj = listed(open_origin(mount, tmp_path))["x"]

        async def body() -> None:
            origin = open_origin(mount, tmp_path)
            assert digest(await origin.fetch(obj, 0, 1000)) == digest(content(1, 1000))
            with pytest.raises(OriginError, match="does not serve ranges"):
                await origin.fetch(obj, 10, 20)

        asyncio.run(body())


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes the certificate with openssl")
def test_a_certificate_of_an_own_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out",
         certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    (tmp_path / "x").write_bytes(b"secret")
    with WebServer(tmp_path, tls=tls) as server:
        mount = Mount(f"{server.url}/x")
        with pytest.raises(OriginError, match="certificate"):
            listed(open_origin(mount, tmp_path))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert listed(open_origin(mount, tmp_path))["x"].size_bytes == 6
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
        with pytest.raises(UserError, match="cannot read the certificates"):
            open_origin(mount, tmp_path)


def test_the_child_is_started_again_when_it_dies(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content(1, 100_000))
    mount = Mount(f"file://{tmp_path}/")
    obj = listed(open_origin(mount, tmp_path))["x"]

    async def body() -> None:
        origin = open_origin(mount, tmp_path)
        try:
            await origin.fetch(obj, 0, 10)
            for _ in range(3):
                os.kill(origin._child._process.pid, 9)  # type: ignore[attr-defined]
                bodies = await asyncio.gather(*(origin.fetch(obj, n, 50_000) for n in range(20)))
                for n, data in enumerate(bodies):
                    assert digest(data) == digest(content(1, 100_000)[n : n + 50_000])
        finally:
            await origin.close()

    asyncio.run(body())


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")

    async def body() -> int:
        origin = open_origin(Mount(f"file://{tmp_path}/"), tmp_path)
        await origin.check()
        pid: int = origin._child._process.pid  # type: ignore[attr-defined]
        await origin.close()
        with pytest.raises(OriginError, match="closed"):
            await origin.fetch(OriginObject("x", 1, "", "", 0), 0, 1)
        return pid

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(body()), 0)


@pytest.mark.parametrize("url", ["nope://x/y", "gopher9://x/"])
def test_unknown_scheme(tmp_path: Path, url: str) -> None:
    async def body() -> None:
        origin = open_origin(Mount(url), tmp_path)
        try:
            await origin.check()
        finally:
            await origin.close()

    with pytest.raises(UserError, match=url):
        asyncio.run(body())
