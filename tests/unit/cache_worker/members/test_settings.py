"""The fields of CONFIG about the cluster."""

from pathlib import Path

import pytest

from cache_worker.cluster.view import Member
from cache_worker.members.acl import checked
from cache_worker.members.settings import Cluster, RedisPlace, RedisServer, parse, parse_url
from cacheop.api.errors import UserError

REDIS = {
    "url": "redis://cacheop-ns-data@127.0.0.1:6380/0",
    "password_file": "/run/password",
    "prefix": "cacheop:ns/data:",
}
LISTED = [
    {"node": "n1", "address": "127.0.0.1:71", "zone": "b"},
    {"node": "n0", "address": "127.0.0.1:70", "zone": "a"},
]


def static(listed):
    return {"zone": "a", "peers": "127.0.0.1:70", "members": {"static": listed}}


def redis(**changes):
    return {"peers": ":0", "members": {"redis": {**REDIS, **changes}}}


def test_nothing_said_is_no_cluster():
    assert parse({}, "n0") == Cluster()


def test_a_fixed_list():
    found = parse(static(LISTED), "n0")
    assert found.static == (
        Member("n0", "127.0.0.1:70", "a"),
        Member("n1", "127.0.0.1:71", "b"),
    )
    assert (found.zone, found.peers, found.redis) == ("a", "127.0.0.1:70", None)


def test_a_redis():
    found = parse({**redis(), "redis_admin": {"url": "rediss://[::1]"}}, "n0")
    assert found.redis == RedisPlace(
        RedisServer("127.0.0.1", 6380, 0, False, "cacheop-ns-data", Path("/run/password")),
        "cacheop:ns/data:",
    )
    assert found.redis_admin == RedisServer("::1", 6379, tls=True)
    assert str(found.redis_admin) == "rediss://[::1]:6379/0"


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({"members": {"static": LISTED}}, "peers"),
        ({"peers": "127.0.0.1"}, "peers"),
        ({"peers": "127.0.0.1:70000"}, "peers"),
        ({"peers": 7}, "peers"),
        ({"zone": ["a"]}, "zone"),
        ({"zone": "a\n"}, "zone"),
        ({"members": [], "peers": ":1", "redis_admin": "redis://x"}, "redis_admin"),
        ({"members": "redis", "peers": ":1"}, "members"),
        ({"members": {"consul": {}}, "peers": ":1"}, "consul"),
        ({"members": {"static": LISTED, "redis": REDIS}, "peers": ":1"}, "both"),
        (static({}), "list"),
        (static([]), "n0"),
        (static(["n0"]), r"static\[0\]"),
        (static(LISTED[:1]), "n0"),
        (static(LISTED + LISTED[:1]), "twice"),
        (static([{**LISTED[1], "address": "here"}]), "address"),
        (static([{**LISTED[1], "zone": "other"}]), "zone"),
        (redis(url="http://127.0.0.1"), "URL"),
        (redis(url="redis://u@:1"), "URL"),
        (redis(url="redis://u@h:port"), "port"),
        (redis(url="redis://u@[::1"), "host"),
        (redis(url="redis://u@h/db"), "database"),
        (redis(url="redis://u@h/0?ssl=no"), "database"),
        (redis(url=None), "url"),
        (redis(prefix=""), "prefix"),
        (redis(prefix="cacheop:*:"), "prefix"),
        (redis(prefix="cacheop"), "prefix"),
        (redis(password_file=""), "password_file"),
    ],
)
def test_what_is_wrong_is_named(raw, word):
    with pytest.raises(UserError, match=word):
        parse(raw, "n0")


def test_a_password_in_the_url_is_refused_and_not_told():
    with pytest.raises(UserError) as caught:
        parse_url("members.redis.url", "redis://u:hunter2@h:1/0")
    assert "hunter2" not in str(caught.value)
    assert "password_file" in caught.value.hint


def test_users_may_have_names_that_a_url_must_escape():
    assert parse_url("x", "redis://a%40b@h").user == "a@b"


@pytest.mark.parametrize("user", ["", "default", "root"])
def test_no_user_of_others_is_cut_down(user):
    place = RedisPlace(RedisServer("h", user=user), "p:")
    with pytest.raises(UserError, match="user"):
        checked(RedisServer("h", user="root"), place)


def test_keeping_the_user_needs_an_admin_and_a_place():
    place = RedisPlace(RedisServer("h", user="u"), "p:")
    assert checked(RedisServer("h"), place) == (RedisServer("h"), place)
    with pytest.raises(UserError, match="redis_admin"):
        checked(None, place)
    with pytest.raises(UserError, match=r"members\.redis"):
        checked(RedisServer("h"), None)
