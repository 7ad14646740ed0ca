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

CONCURRENCY = 32


async def _upload(
    endpoint: str, key: str, secret: str, bucket: str, folder: Path, prefix: str
) -> None:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=key,
        secret_access_key=secret,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "300s"},
    )
    files = iter(sorted(path for path in folder.rglob("*") if path.is_file()))

    async def work() -> None:
        # One shared iterator is the queue; asyncio runs one of us at a time.
        for path in files:
            await obstore.put_async(store, prefix + path.relative_to(folder).as_posix(), path)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


def main() -> int:
    """Upload; exit code 0 when every file is there."""
    endpoint, key, secret, bucket, folder, prefix = sys.argv[1:]
    try:
        asyncio.run(_upload(endpoint, key, secret, bucket, Path(folder), prefix))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
