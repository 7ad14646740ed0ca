from __future__ import annotations

from cacheop.api.redis_acl import rules


def test_the_user_gets_its_prefix_and_no_more():
    told = rules("cacheop:ns/data:", b"secret", 0)
    assert told[0] == "reset"
    assert "~cacheop:ns/data:*" in told
    assert told.index("-@all") < told.index("+hset")
    assert {"resetkeys", "resetchannels", "on"} <= set(told)
    allowed = {word for word in told if word.startswith("+")}
    assert allowed == {"+auth", "+hello", "+ping", "+time", "+hset", "+hgetall", "+hdel", "+incr"}
    assert not any("secret" in word for word in told)


def test_another_database_needs_one_command_more():
    assert "+select" in rules("p:", b"x", 3)
