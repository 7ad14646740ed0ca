"""What the nodes of one `up` are told of each other."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from cacheop.cli import checks, cluster
from cacheop.cli.redis_url import RedisUrl

PRIVATE = Path("/run/x")
ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


def told(zones=1, redis=None, namespace="team"):
    made = cluster.of(3, zones, redis)
    return made, cluster.fields(made, ADDRESSES, PRIVATE, namespace, "demo")


def test_one_node_is_no_cluster():
    assert cluster.of(1, 1, None) is None
    assert cluster.of(1, 1, RedisUrl("r")).zones == ("zone-0",)


def test_a_fixed_list_names_everybody_to_everybody():
    _, fields = told(zones=2)
    assert [f["zone"] for f in fields] == ["zone-0", "zone-1", "zone-0"]
    assert [f["peers"] for f in fields] == ADDRESSES
    members = [
        {"node": f"node-{k}", "address": ADDRESSES[k], "zone": f"zone-{k % 2}"} for k in range(3)
    ]
    assert all(f["members"] == {"static": members} for f in fields)
    assert not any("redis_admin" in f for f in fields)


def test_a_redis_gets_a_user_of_the_dataset_s_own_and_no_config_a_password():
    redis = RedisUrl("r", 7, 2, True, "boss", "secret")
    _, fields = told(redis=redis)
    assert all(
        f["members"]["redis"]
        == {
            "url": "rediss://cacheop-team.demo@r:7/2",
            "password_file": "/run/x/redis-password",
            "prefix": "cacheop:team/demo:",
        }
        for f in fields
    )
    assert fields[0]["redis_admin"] == {
        "url": "rediss://boss@r:7/2",
        "password_file": "/run/x/redis-admin-password",
    }
    assert not any("redis_admin" in f for f in fields[1:])
    assert "secret" not in json.dumps(fields)
    _, open_to_all = told(redis=RedisUrl("r"))
    assert open_to_all[0]["redis_admin"] == {"url": "redis://r:6379/0", "password_file": ""}


def test_users_of_two_datasets_are_never_the_same():
    assert cluster.acl_user("a-b", "c") != cluster.acl_user("a", "b-c")


@pytest.mark.parametrize(
    ("zones", "redis", "differs"),
    [
        (2, None, (False, False)),
        (1, None, (True, False)),
        (2, RedisUrl("r"), (False, True)),
    ],
)
def test_what_runs_is_compared_with_what_is_wanted(zones, redis, differs):
    _, running = told(zones=2)
    assert cluster.differences(cluster.of(3, zones, redis), running) == differs
    _, with_redis = told(redis=RedisUrl("r", password="one"))
    same = cluster.of(3, 1, RedisUrl("r", password="other"))
    assert cluster.differences(same, with_redis) == (False, False)
    assert cluster.differences(None, [{}]) == (False, False)


def test_ports_are_free_different_and_not_the_kernel_s_own():
    ports = checks.free_ports("127.0.0.1", 64)
    assert len(set(ports)) == 64
    low = int(checks.EPHEMERAL_PORTS.read_text().split()[0])
    assert all(checks.FIRST_PORT <= port < low for port in ports)
    for port in ports[:4]:
        socket.create_server(("127.0.0.1", port)).close()
