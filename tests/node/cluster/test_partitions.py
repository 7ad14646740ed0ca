"""A network that breaks between nodes: right bytes for everybody, and it heals by itself."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.lab.network import Lab, missing
from tests.fakes.lab.nodes import cluster, running
from tests.fakes.lab.origin import Origin, origin
from tests.fakes.lab.readers import Readers
from tests.fakes.running_node import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.lab.nodes import LabNode

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(os.geteuid() != 0 or bool(missing()), reason=missing() or "needs root"),
    pytest.mark.timeout(240),
]

NODES = ("n0", "n1", "n2")
FILES, FILE_BYTES, MBIT = 240, 110 << 10, 100
BEGIN_SHARE = 0.2
FAULT_SECONDS = 6.0
SLOWEST_READ_SECONDS = 45.0
HEALED_SECONDS = 15.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Origin]]:
    with (
        Lab([*NODES, "s3"]) as found,
        origin(found.host("s3"), tmp_path_factory.mktemp("s3")) as s3,
    ):
        yield found, s3


def link_down(nodes: list[LabNode]) -> None:
    nodes[2].host.link(up=False)


def split(nodes: list[LabNode]) -> None:
    """The first two and the third do not hear of each other; all reach the origin."""
    for node in nodes[:2]:
        node.host.drop(nodes[2].host)
        nodes[2].host.drop(node.host)


def one_way(nodes: list[LabNode]) -> None:
    nodes[0].host.drop(nodes[2].host)


def loss(nodes: list[LabNode]) -> None:
    for node in nodes:
        node.host.drop(percent=30)


@pytest.mark.parametrize("fault", [link_down, split, one_way, loss])
def test_readers_get_right_bytes_while_the_network_is_broken(
    lab: tuple[Lab, Origin], tmp_path, fault: Callable[[list[LabNode]], None]
):
    network, s3 = lab
    files = s3.make("small", FILES, FILE_BYTES)
    network.heal()
    for host in network.hosts:
        host.shape(up_mbit=MBIT, down_mbit=MBIT)
    nodes = cluster([network.host(n) for n in NODES], tmp_path / "nodes", s3.mounts(files))
    with running(nodes), Readers(nodes, files, threads=4) as readers:
        readers.start()
        share = BEGIN_SHARE * files.total_bytes
        wait_for(lambda: nodes[0].status()["cached_bytes"] > share, 60)
        fault(nodes)
        healing = threading.Timer(FAULT_SECONDS, network.heal)
        healing.start()
        seen = readers.results(150)
        healing.join()
        assert [one.wrong + one.errors for one in seen] == [[], [], []]
        assert max(seconds for one in seen for _, seconds, _ in one.reads) < SLOWEST_READ_SECONDS
        wait_for(lambda: all(len(n.live_members()) == len(NODES) for n in nodes), HEALED_SECONDS)


def test_neighbours_far_away_are_slow_not_wrong(lab: tuple[Lab, Origin], tmp_path):
    """200 ms to every peer, each way."""
    network, s3 = lab
    files = s3.make("small", FILES, FILE_BYTES)
    network.heal()
    nodes = cluster([network.host(n) for n in NODES], tmp_path / "nodes", s3.mounts(files))
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(node.interposed(delay_seconds=0.2))
        stack.enter_context(running(nodes))
        readers = stack.enter_context(Readers(nodes, files, threads=4))
        began = readers.start()
        seen = readers.results(150)
        assert [one.wrong + one.errors for one in seen] == [[], [], []]
        assert time.monotonic() - began < 120
        assert sum(n.metric("cacheop_origin_bytes_total") for n in nodes) >= files.total_bytes
