"""A man in the middle: `python -m tests.fakes.lab.forwarder LISTEN TARGET DELAY FLIP_AFTER`.

Forwards TCP from LISTEN to TARGET (host:port both), each byte DELAY seconds after it came, in both
directions, at any rate. With FLIP_AFTER > 0 a bit is turned over in what TARGET sends, every so
many bytes. Ends when its standard input does. Prints a line when it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

PIECE_BYTES = 256 << 10
PIECES_WAITING = 256  # bounds the memory of one direction of one connection


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, flip_after: int
) -> None:
    """One direction, to its end."""
    waiting: asyncio.Queue[tuple[float, bytearray]] = asyncio.Queue(PIECES_WAITING)
    clock = asyncio.get_running_loop().time

    async def receive() -> None:
        passed, flip_at = 0, flip_after
        while data := bytearray(await reader.read(PIECE_BYTES)):
            while flip_after and passed <= flip_at < passed + len(data):
                data[flip_at - passed] ^= 1
                flip_at += flip_after
            passed += len(data)
            await waiting.put((clock() + delay, data))
        await waiting.put((clock() + delay, bytearray()))

    async def send() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - clock())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(receive())
        group.create_task(send())


async def main(listen: str, target: str, delay: float, flip_after: int) -> None:
    """Until standard input ends."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        with contextlib.suppress(OSError, ExceptionGroup):
            try:
                there, to = await asyncio.open_connection(host, int(port))
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(pass_on(reader, to, delay, 0))
                        group.create_task(pass_on(there, writer, delay, flip_after))
                finally:
                    to.close()
            finally:
                writer.close()

    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(forward, host, int(port), limit=PIECE_BYTES)
    async with server:
        print("listening", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
