"""A stand-in for S3 that answers only ListObjectsV2, from pages rendered before the first request.

`python benchmarks/list_stub.py KEYS` prints its port on 127.0.0.1 as the first line and
ends when its standard input is closed. Keys look like a training set of images in directories, such
as `train/0012/img_0000012345.jpg`. With a second argument `siblings` there is also `train-extra/…`,
whose keys sort before `train/…` for S3 and behind it in a tree.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from urllib.parse import parse_qs, urlsplit

PAGE_KEYS = 1000  # what S3 gives at most
FILES_PER_DIRECTORY = 1000

_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2025-11-{day:02d}T10:{minute:02d}:00.000Z"
    "</LastModified><ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents>"
)
_PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>stub</Name>'
    "<Prefix></Prefix><MaxKeys>1000</MaxKeys><KeyCount>{count}</KeyCount>"
    "<IsTruncated>{truncated}</IsTruncated>{token}{entries}</ListBucketResult>"
)


def key_of(number: int, keys: int, *, siblings: bool) -> str:
    """Key `number` of `keys`, ascending as S3 sorts them."""
    top = "train-extra" if siblings and number < keys // 2 else "train"
    return f"{top}/{number // FILES_PER_DIRECTORY:04d}/img_{number:010d}.jpg"


def render_pages(keys: int, *, siblings: bool = False) -> list[bytes]:
    """Whole HTTP responses, one for each page."""
    pages = []
    for start in range(0, keys, PAGE_KEYS):
        stop = min(start + PAGE_KEYS, keys)
        entries = "".join(
            _ENTRY.format(
                key=key_of(number, keys, siblings=siblings),
                day=1 + number % 28,
                minute=number % 60,
                etag=hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest(),
                size=90_000 + number * 7919 % 40_000,
            )
            for number in range(start, stop)
        )
        more = stop < keys
        body = _PAGE.format(
            count=stop - start,
            truncated="true" if more else "false",
            token=f"<NextContinuationToken>{stop // PAGE_KEYS}</NextContinuationToken>"
            if more
            else "",
            entries=entries,
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
        pages.append(head.encode() + b"\r\n\r\n" + body)
    return pages


class ListProtocol(asyncio.Protocol):
    """Keep-alive HTTP/1.1 GETs without a body; the continuation token is the page number."""

    def __init__(self, pages: list[bytes]) -> None:
        self._pages = pages
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; it may stay for all pages."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request with its page."""
        assert self._transport is not None
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            token = parse_qs(urlsplit(target).query).get("continuation-token", ["0"])[0]
            self._transport.write(self._pages[int(token)])


async def serve(keys: int, *, siblings: bool) -> None:
    """Serve until standard input ends, so that the stub never outlives who started it."""
    pages = render_pages(keys, siblings=siblings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ListProtocol(pages), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), siblings="siblings" in sys.argv[2:]))
