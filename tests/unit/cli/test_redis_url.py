"""What `up --redis` takes, and what a Redis must be like. Against real Redis servers."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.errors import CredentialError, UserError
from cacheop.cli import redis_probe, redis_url
from cacheop.cli.redis_url import RedisUrl
from tests.fakes.redis_server import ADMIN_PASSWORD, MISSING, SERVER, RedisServer

USER = "cacheop-default.demo"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://r", RedisUrl("r")),
        ("redis://:pw@r:7/3", RedisUrl("r", 7, 3, password="pw")),
        ("rediss://me:p%40%2F%3A@[::1]:7/", RedisUrl("::1", 7, 0, True, "me", "p@/:")),
    ],
)
def test_urls(text, url):
    assert redis_url.parse(text) == url


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.integers(1, 65535),
    st.integers(0, 99999),
)
def test_the_url_without_its_password_is_the_same_place(user, port, database):
    url = RedisUrl("r", port, database, False, user, "secret")
    again = redis_url.parse(url.without_password())
    assert again == RedisUrl("r", port, database, False, user)


@pytest.mark.parametrize(
    "text",
    [
        "", "r:6379", "http://r", "redis://", "redis://:pw@", "redis://r:x", "redis://r:0",
        "redis://r:99999", "redis://r/x", "redis://r/0/1", "redis://r?a=b", "redis://r/-1",
        "redis://me:secret/with/slash@r", "redis://[::1", "rediss:/r",
    ],
)  # fmt: skip
def test_what_is_no_url(text):
    with pytest.raises(UserError, match="--redis: ") as caught:
        redis_url.parse(text)
    assert "secret" not in str(caught.value)
    assert "redis://user:password@" in str(caught.value)


def test_the_password_is_not_shown():
    assert "secret" not in repr(redis_url.parse("redis://:secret@r"))


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    if SERVER is None:
        pytest.skip(MISSING)
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.close()


def at(redis, **who):
    return RedisUrl("127.0.0.1", redis.port, **who)


def test_a_redis_that_will_do(redis):
    redis_probe.check(at(redis, password=ADMIN_PASSWORD), USER)
    redis_probe.check(at(redis, user="default", password=ADMIN_PASSWORD, database=3), USER)


def test_a_redis_that_will_not_do(redis):
    for who, says in (
        ({"password": "wrong"}, "refuses user default: WRONGPASS"),
        ({"user": "nobody", "password": ADMIN_PASSWORD}, "refuses user nobody: WRONGPASS"),
        ({}, "refuses user default: NOAUTH"),
    ):
        with pytest.raises(CredentialError, match=says):
            redis_probe.check(at(redis, **who), USER)
    with pytest.raises(UserError, match="SELECT with: ERR DB index"):
        redis_probe.check(at(redis, password=ADMIN_PASSWORD, database=99), USER)
    with pytest.raises(UserError, match="Dataset's own user"):
        redis_probe.check(at(redis, user=USER, password="x"), USER)


def test_a_user_who_may_not_make_users(redis):
    redis.cli("ACL", "SETUSER", "small", "on", ">pw", "+@all", "-@admin", "~*")
    with pytest.raises(CredentialError, match=r"user small: NOPERM .*\+acl"):
        redis_probe.check(at(redis, user="small", password="pw"), USER)


def test_tls_that_is_not_there(redis):
    with pytest.raises(UserError, match="redis"):
        redis_probe.check(at(redis, tls=True), USER)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=r"cannot reach 127\.0\.0\.1:.*Connection refused"):
        redis_probe.check(RedisUrl("127.0.0.1", port), USER)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 99, b"$999999999\r\n", b"*9"]
)
def test_what_is_no_redis(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UserError, match=r"no Redis|cannot reach"):
            redis_probe.check(RedisUrl("127.0.0.1", server.getsockname()[1]), USER)
        thread.join()
