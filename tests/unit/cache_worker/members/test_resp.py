"""The Redis client on a server that answers what a test wants it to."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_worker.members import resp
from cache_worker.members.settings import RedisServer
from cacheop.api.errors import ProtocolError


@contextlib.asynccontextmanager
async def answering(*answers, end=True):
    """A server that reads a bit and says the next of `answers` in pieces."""
    heard = []

    async def serve(reader, writer):
        for answer in answers:
            heard.append(await reader.read(1 << 16))
            size = 7 + len(answer) // 16
            for k in range(0, len(answer), size):
                writer.write(answer[k : k + size])
                await writer.drain()
        if end:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield RedisServer("127.0.0.1", server.sockets[0].getsockname()[1]), heard
    finally:
        server.close()


def call(answer, *commands):
    async def run():
        async with asyncio.timeout(10), answering(answer) as (server, _):
            connection = await resp.Connection.open(server)
            try:
                return await connection.call(*(commands or [("PING",)]))
            finally:
                connection.close()

    return asyncio.run(run())


def encoded(reply):
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(encoded, reply)))


scalars = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40)
replies = scalars | st.lists(scalars, max_size=6)


@given(st.lists(replies, min_size=1, max_size=4))
def test_answers_to_a_pipeline_come_back_in_order(expected):
    async def run():
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join(map(encoded, expected)))
        connection = resp.Connection(reader, Sink())
        assert await connection.call(*[("PING",)] * len(expected)) == expected

    asyncio.run(run())


@given(st.binary(max_size=60))
def test_garbage_is_an_os_error_and_nothing_else(garbage):
    async def run():
        reader = asyncio.StreamReader()
        reader.feed_data(garbage)
        reader.feed_eof()
        with contextlib.suppress(OSError):
            await resp.Connection(reader, Sink()).call(("PING",))

    asyncio.run(run())


class Sink:
    """A writer into nothing."""

    def write(self, data):
        self.written = data

    async def drain(self):
        pass

    @property
    def transport(self):
        return self

    def abort(self):
        pass


def test_commands_are_encoded_by_bytes_not_letters():
    assert resp.encode(("HSET", "ключ", 7)) == (
        "*3\r\n$4\r\nHSET\r\n$8\r\nключ\r\n$1\r\n7\r\n".encode()
    )


def test_simple_strings():
    assert call(b"+PONG\r\n") == [b"PONG"]


def test_a_refusal_is_raised_with_what_redis_said():
    with pytest.raises(resp.Refused, match="NOPERM no rights"):
        call(b":1\r\n-NOPERM no rights\r\n", ("INCR", "a"), ("KEYS", "*"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$5\r\nabcdeXX\r\n",
        b"$1e9\r\n",
        b"*x\r\n",
        b":1_0\r\n",
        b"x" * (1 << 17),
        b"$999999999999\r\n",
        b"*999999999\r\n",
        b"*1\r\n" * 10_000,
    ],
)
def test_what_is_no_redis_is_a_protocol_error(answer):
    with pytest.raises(ProtocolError):
        call(answer)


def test_many_small_answers_are_limited_too():
    big = encoded(b"x" * (1 << 20))
    with pytest.raises(ProtocolError, match="over"):
        call(b"*5\r\n" + big * 5)
    with pytest.raises(ProtocolError, match="over"):
        call(big * 5, *[("GET", "a")] * 5)


@pytest.mark.parametrize("answer", [b"", b"+PON", b"$10\r\nabc", b"*2\r\n:1\r\n"])
def test_an_answer_that_breaks_off_is_a_lost_connection(answer):
    with pytest.raises(ConnectionError):
        call(answer)


def test_nobody_there_is_refused():
    async def run():
        async with answering(b"") as (server, _):
            pass
        with pytest.raises(OSError):
            await resp.Connection.open(server)

    asyncio.run(run())


def test_a_name_with_several_addresses_is_tried_until_one_takes_us():
    async def run():
        async with answering(b"+PONG\r\n") as (server, _):  # 127.0.0.1 only, so not ::1
            connection = await resp.Connection.open(RedisServer("localhost", server.port))
            assert await connection.call(("PING",)) == [b"PONG"]
            connection.close()

    asyncio.run(run())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_a_name_that_is_none_is_an_os_error(host):
    async def run():
        async with asyncio.timeout(10):
            with pytest.raises(OSError):
                await resp.Connection.open(RedisServer(host))

    asyncio.run(run())


def test_who_says_nothing_is_waited_for_as_long_as_the_caller_says():
    async def run():
        async with answering(b"", end=False) as (server, _):
            connection = await resp.Connection.open(server)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connection.call(("PING",))
            with pytest.raises(OSError):
                await connection.call(("PING",))

    asyncio.run(run())


def test_it_says_who_it_is_with_the_password_that_is_in_the_file_now(tmp_path):
    async def run():
        file = tmp_path / "password"
        for password in ("first", "second"):
            file.write_text(password + "\n")
            async with answering(b"+OK\r\n", b"+OK\r\n") as (server, heard):
                place = RedisServer(server.host, server.port, 2, False, "u", file)
                (await resp.Connection.open(place)).close()
                assert heard == [
                    resp.encode(("AUTH", "u", password)),
                    resp.encode(("SELECT", 2)),
                ]

    asyncio.run(run())


def test_a_password_without_a_user_is_the_default_users(tmp_path):
    async def run():
        file = tmp_path / "password"
        file.write_text("p")
        async with answering(b"+OK\r\n") as (server, heard):
            place = RedisServer(server.host, server.port, password_file=file)
            (await resp.Connection.open(place)).close()
            assert heard == [resp.encode(("AUTH", "p"))]

    asyncio.run(run())


def test_answers_of_another_form_are_refused():
    assert resp.milliseconds([b"17", b"999999"]) == 17_999
    assert resp.pairs([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
    assert resp.count(3) == 3
    for wrong in (None, 7, b"x", [b"1"], [b"1", 2], [b"x", b"y", b"z"]):
        with pytest.raises(ProtocolError):
            resp.milliseconds(wrong)
        with pytest.raises(ProtocolError):
            resp.pairs(wrong)
    with pytest.raises(ProtocolError):
        resp.count(b"3")
