"""What goes wrong between us and a real S3 server: right bytes or a clear error, never others."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from cache_worker.origins import OriginObject, open_origin
from cacheop.api.dataset import Mount
from cacheop.api.errors import CacheopError, OriginChanged, OriginError
from tests.fakes.fault_proxy import (
    BlackHole,
    Cut,
    FaultProxy,
    Refuse,
    Slow,
    Status,
    Then,
    Truncate,
)
from tests.suites.origin import content, digest, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.demo.server import S3Server

pytestmark = pytest.mark.node

SIZE = 200_000
DATA = content(7, SIZE)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.port) as proxy:
        yield proxy


class Scene:
    """An object `x` of SIZE bytes behind the proxy."""

    def __init__(self, s3: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path) -> None:
        self.proxy, self.bucket, self.s3, self.tmp_path = proxy, bucket, s3, tmp_path
        self.options: dict[str, Any] = {
            "key": s3.access_key,
            "secret": s3.secret_key,
            "endpoint_url": proxy.endpoint,
            "config_kwargs": {"read_timeout": 2, "connect_timeout": 2},
        }
        self.put(DATA)
        self.obj = listed(open_origin(self.mount, tmp_path))["x"]

    @property
    def mount(self) -> Mount:
        return Mount(f"s3://{self.bucket}/", options=self.options)

    def put(self, data: bytes) -> None:
        self.s3.http.put(self.bucket, "x", data)

    def fetch(self, offset: int = 0, length: int = SIZE, obj: OriginObject | None = None) -> Any:
        async def body() -> Any:
            origin = open_origin(self.mount, self.tmp_path)
            try:
                return await origin.fetch(obj or self.obj, offset, length)
            finally:
                await origin.close()

        return asyncio.run(body())


@pytest.fixture
def scene(s3: S3Server, proxy: FaultProxy, bucket: Callable[[], str], tmp_path: Path) -> Scene:
    return Scene(s3, proxy, bucket(), tmp_path)


@pytest.fixture(params=[(0, SIZE), (1000, 100_000)], ids=["whole", "range"])
def span(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.mark.parametrize(
    "fault",
    [Status(503), Status(500), Status(429), Cut(50_000), Cut(0), Refuse(), Slow(3)],
    ids=repr,
)
def test_passing_faults(scene: Scene, span: tuple[int, int], fault: Any) -> None:
    scene.proxy.fail(fault, times=1 if isinstance(fault, Slow) else 3)
    body = scene.fetch(*span)
    assert digest(body) == digest(DATA[span[0] : sum(span)])


def test_a_storm_ends_in_a_clear_error(scene: Scene) -> None:
    scene.options["config_kwargs"]["retries"] = {"max_attempts": 6}
    scene.proxy.fail(Status(503), times=1000)
    with pytest.raises(OriginError, match="HTTP 503, 6 attempts") as told:
        scene.fetch()
    assert "'x'" in str(told.value)
    assert scene.proxy.objects_read() == 6


def test_a_black_hole_ends(scene: Scene) -> None:
    scene.options["config_kwargs"]["retries"] = {"max_attempts": 2}
    scene.proxy.fail(BlackHole(), times=10)
    started = time.monotonic()
    with pytest.raises(OriginError, match="timed out"):
        scene.fetch()
    assert time.monotonic() - started < 8


def test_slow_but_moving_is_waited_for(scene: Scene) -> None:
    scene.proxy.fail(Slow(pieces=10, pause_seconds=0.4))
    assert digest(scene.fetch()) == digest(DATA)
    assert scene.proxy.objects_read() == 1


def test_truncated(scene: Scene, span: tuple[int, int]) -> None:
    scene.options["config_kwargs"]["retries"] = {"max_attempts": 3}
    scene.proxy.fail(Truncate(30_000), times=1000)
    with pytest.raises(CacheopError):
        scene.fetch(*span)


def test_changed_before(scene: Scene, span: tuple[int, int]) -> None:
    scene.put(content(8, SIZE))
    with pytest.raises(OriginChanged):
        scene.fetch(*span)
    assert scene.proxy.objects_read() == 1


def test_changed_in_the_middle(scene: Scene, span: tuple[int, int]) -> None:
    """An answer under way is of one version; it ends as it began, or the next request says 412."""
    scene.proxy.fail(Then(lambda: scene.put(content(8, SIZE))))
    body = scene.fetch(*span)
    assert digest(body) == digest(DATA[span[0] : sum(span)])
    with pytest.raises(OriginChanged):
        scene.fetch(*span)


def test_changed_in_the_middle_without_etags(scene: Scene, span: tuple[int, int]) -> None:
    scene.proxy.strip = ("etag",)
    bare = OriginObject("x", SIZE, "", "", scene.obj.mtime_ns)
    assert digest(scene.fetch(*span, obj=bare)) == digest(DATA[span[0] : sum(span)])

    def change() -> None:
        time.sleep(1.1)
        scene.put(content(8, SIZE))

    scene.proxy.fail(Then(change))
    with pytest.raises(OriginChanged):
        scene.fetch(*span, obj=bare)


def test_an_etag_that_vanished_is_a_change(scene: Scene) -> None:
    scene.proxy.strip = ("etag",)
    with pytest.raises(OriginChanged, match="etag"):
        scene.fetch()


def test_cut_then_changed(scene: Scene) -> None:
    """The second attempt never continues another version's bytes."""
    scene.proxy.fail(Cut(SIZE // 2))
    scene.proxy.fail(Then(lambda: None))
    body = scene.fetch()
    assert digest(body) == digest(DATA)
    scene.proxy.fail(Cut(SIZE // 2))
    scene.proxy.on_fault = lambda: scene.put(content(9, SIZE))
    with pytest.raises(OriginChanged):
        scene.fetch()


def test_multipart_etags_are_opaque(scene: Scene) -> None:
    etag = s3_multipart(scene)
    assert "-" in etag
    obj = listed(open_origin(scene.mount, scene.tmp_path))["parts"]
    assert obj.etag == etag
    body = scene.fetch(0, obj.size_bytes, obj)
    assert len(memoryview(body)) == obj.size_bytes


def s3_multipart(scene: Scene) -> str:
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=scene.s3.endpoint,
        aws_access_key_id=scene.s3.access_key,
        aws_secret_access_key=scene.s3.secret_key,
        region_name="us-east-1",
    )
    where = {"Bucket": scene.bucket, "Key": "parts"}
    upload = client.create_multipart_upload(**where)["UploadId"]
    parts = []
    for number, size in ((1, 5 << 20), (2, 1000)):
        part = client.upload_part(
            **where, UploadId=upload, PartNumber=number, Body=content(number, size)
        )
        parts.append({"ETag": part["ETag"], "PartNumber": number})
    done = client.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    return done["ETag"]
