"""s3:// by obstore against a real S3 server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cache_worker.origins import open_origin
from cacheop.api.dataset import EncryptOption, Mount
from cacheop.api.errors import CredentialError, NotFoundError, OriginChanged, OriginError, UserError
from tests.fakes.fault_proxy import FaultProxy
from tests.suites.origin import OriginSuite, Place, content, digest, listed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.demo.server import S3Server

pytestmark = pytest.mark.node


def s3_place(s3: S3Server, bucket: str, options: dict[str, object]) -> Place:
    keys = {"key": s3.access_key, "secret": s3.secret_key, "endpoint_url": s3.endpoint}
    return Place(
        f"s3://{bucket}/",
        {**keys, **options},
        put=lambda key, body: s3.http.put(bucket, key, body) and None,
        delete=lambda key: s3.http.delete(bucket, key),
    )


@pytest.fixture
def place(s3: S3Server, bucket: Callable[[], str]) -> Place:
    return s3_place(s3, bucket(), {})


class TestS3(OriginSuite):
    tells_of_pieces = True

    @pytest.fixture
    def place(self, s3: S3Server, bucket: Callable[[], str]) -> Place:
        return s3_place(s3, bucket(), {})


class TestS3WithoutEtags(OriginSuite):
    """A server that knows no etags, neither in listings nor in answers."""

    tells_of_pieces = True

    @pytest.fixture
    def place(self, s3: S3Server, bucket: Callable[[], str]):
        import re

        with FaultProxy(s3.port, strip=("etag",)) as proxy:
            proxy.rewrite = lambda body: re.sub(rb"<ETag>.*?</ETag>", b"", body)
            yield s3_place(s3, bucket(), {"endpoint_url": proxy.endpoint})

    def let_the_clock_move(self) -> None:
        import time

        time.sleep(1.1)  # HTTP's times are whole seconds


class TestS3ByFsspec(OriginSuite):
    @pytest.fixture
    def place(self, s3: S3Server, bucket: Callable[[], str]) -> Place:
        return s3_place(s3, bucket(), {"engine": "fsspec"})


def mount_of(place: Place, **changes: object) -> Mount:
    return Mount(place.mount_point, options={**place.options, **changes})


def check(mount: Mount, secrets: Path) -> None:
    async def body() -> None:
        origin = open_origin(mount, secrets)
        try:
            await origin.check()
        finally:
            await origin.close()

    asyncio.run(body())


def test_folder_markers_are_not_files(place: Place, tmp_path: Path) -> None:
    place.put("dir/", b"")
    place.put("dir/file", b"1")
    place.put("really empty", b"")
    found = listed(open_origin(mount_of(place), tmp_path))
    assert sorted(found) == ["dir/file", "really empty"]


@pytest.mark.parametrize("engine", ["obstore", "fsspec"])
def test_wrong_credentials(place: Place, tmp_path: Path, engine: str) -> None:
    with pytest.raises(CredentialError) as told:
        check(mount_of(place, secret="wrong", engine=engine), tmp_path)
    assert place.mount_point in str(told.value)
    assert "403" in str(told.value) or engine == "fsspec"
    assert told.value.hint


def test_no_such_bucket(place: Place, tmp_path: Path) -> None:
    mount = Mount("s3://no-such-bucket/", options=place.options)
    with pytest.raises(NotFoundError, match="NoSuchBucket"):
        check(mount, tmp_path)
    with pytest.raises(NotFoundError, match="NoSuchBucket"):
        listed(open_origin(mount, tmp_path))


def test_unreachable(place: Place, tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="refused") as told:
        check(mount_of(place, endpoint_url="http://127.0.0.1:9"), tmp_path)
    assert "endpoint_url" in told.value.hint


def test_empty_prefix(place: Place, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is below"):
        check(mount_of(place), tmp_path)


def secret_mount(place: Place, tmp_path: Path, secret: str, engine: str) -> Mount:
    (tmp_path / "s3").mkdir()
    (tmp_path / "s3" / "secret").write_text(secret + "\n")
    options = {k: v for k, v in place.options.items() if k != "secret"} | {"engine": engine}
    return Mount(
        place.mount_point,
        options=options,
        encrypt_options=(EncryptOption("secret", "s3", "secret"),),
    )


@pytest.mark.parametrize("engine", ["obstore", "fsspec"])
def test_a_mended_secret_needs_no_restart(place: Place, tmp_path: Path, engine: str) -> None:
    data = {f"f{n}": content(n, 5000) for n in range(8)}
    for key, value in data.items():
        place.put(key, value)
    objects = listed(open_origin(mount_of(place), tmp_path))

    async def body() -> None:
        origin = open_origin(secret_mount(place, tmp_path, "wrong", engine), tmp_path)
        try:
            with pytest.raises(CredentialError):
                await origin.fetch(objects["f0"], 0, 5000)
            (tmp_path / "s3" / "secret").write_text(place.options["secret"])
            bodies = await asyncio.gather(*(origin.fetch(objects[k], 0, 5000) for k in data))
            assert [digest(b) for b in bodies] == [digest(v) for v in data.values()]
        finally:
            await origin.close()

    asyncio.run(body())


def test_credentials_of_a_profile(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("x", b"1")
    file = tmp_path / "credentials"
    file.write_text(
        f"[lab]\naws_access_key_id = {place.options['key']}\n"
        f"aws_secret_access_key = {place.options['secret']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of somebody else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of somebody else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    options = {"endpoint_url": place.options["endpoint_url"], "profile": "lab"}
    check(Mount(place.mount_point, options=options), tmp_path)
    check(mount_of(place), tmp_path)  # a key of its own does not go with the token either


def test_the_datasets_endpoint_beats_the_environment(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("x", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    check(mount_of(place), tmp_path)


def test_keys_that_obstore_cannot_address_do_not_end_the_listing(
    s3: S3Server, place: Place, tmp_path: Path
) -> None:
    for n in range(20):
        place.put(f"k{n:02}", b"1")

    def odd(body: bytes) -> bytes:
        return body.replace(b"<Key>k07</Key>", b"<Key>../k07</Key>")

    with FaultProxy(s3.port) as proxy:
        proxy.rewrite = odd
        found = listed(open_origin(mount_of(place, endpoint_url=proxy.endpoint), tmp_path))
    assert "../k07" in found
    assert len(found) == 20


def test_changed_between_list_and_read_by_version(place: Place, tmp_path: Path) -> None:
    """`version_aware` lists the latest versions; an unversioned bucket has none."""
    place.put("x", content(1, 100))
    found = listed(open_origin(mount_of(place, version_aware=True), tmp_path))
    assert found["x"].size_bytes == 100

    async def body() -> None:
        origin = open_origin(mount_of(place), tmp_path)
        place.put("x", content(2, 100))
        with pytest.raises(OriginChanged):
            await origin.fetch(found["x"], 0, 100)
        await origin.close()

    asyncio.run(body())


def test_no_credentials_at_all(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    mount = Mount(place.mount_point, options={"endpoint_url": place.options["endpoint_url"]})
    with pytest.raises(CredentialError, match="no credentials were found"):
        check(mount, tmp_path)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(CredentialError, match="no credentials were found"):
        check(mount, tmp_path)


def test_what_goes_over_the_wire(s3: S3Server, place: Place, tmp_path: Path) -> None:
    place.put("x", b"1")
    with FaultProxy(s3.port) as proxy:
        paying = mount_of(place, endpoint_url=proxy.endpoint, requester_pays=True)
        check(paying, tmp_path)
        assert proxy.headers[-1]["x-amz-request-payer"] == "requester"
        assert "authorization" in proxy.headers[-1]
        public = {"endpoint_url": proxy.endpoint, "anon": True}
        with pytest.raises(CredentialError):
            check(Mount(place.mount_point, options=public), tmp_path)
        assert "authorization" not in proxy.headers[-1]


def test_a_proxy_of_the_users(s3: S3Server, place: Place, tmp_path: Path) -> None:
    place.put("x", b"1")
    with FaultProxy(s3.port) as proxy:
        kwargs = {"proxies": {"http": proxy.endpoint}}
        check(mount_of(place, config_kwargs=kwargs), tmp_path)
        assert proxy.requests[-1].startswith(f"GET {s3.endpoint}/")
