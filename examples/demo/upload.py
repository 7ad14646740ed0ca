"""`python -m examples.demo.upload ENDPOINT KEY SECRET BUCKET FOLDER PREFIX`: a folder into S3.

A process of its own because obstore brings threads that do not survive a fork, and can abort at
interpreter exit: it flushes and ends by os._exit.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import S3Store

CONCURRENCY = 32


async def _upload(store: S3Store, files: Iterator[tuple[str, Path]]) -> None:
    import obstore

    async def work() -> None:
        # One shared iterator is the queue; asyncio runs one of us at a time.
        for name, path in files:
            await obstore.put_async(store, name, path)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


def main() -> int:
    """Upload; exit code 0 when every file is there."""
    from obstore.store import S3Store

    endpoint, key, secret, bucket, folder, prefix = sys.argv[1:]
    store = S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=key,
        secret_access_key=secret,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "300s"},
    )
    root = Path(folder)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    try:
        asyncio.run(_upload(store, ((prefix + p.relative_to(root).as_posix(), p) for p in paths)))
    except Exception:  # noqa: BLE001 - told in full, then the exit code says it
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
