"""Several workers are one cache: each byte leaves the origin once, whoever comes, goes or dies."""

import errno
import signal

import pytest

from tests.fakes.running_cluster import Reader, RunningCluster, some_files

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def files():
    return some_files()


@pytest.fixture(scope="module")
def alive(tmp_path_factory, files):
    """Four nodes that the tests of this file have one after the other."""
    with RunningCluster(tmp_path_factory.mktemp("cluster"), files) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(alive):
    """All four run, and nothing is cached."""
    alive.begin_cold()
    return alive


def test_four_readers_in_different_orders_read_each_byte_once_from_the_origin(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        cluster.read_all()
        assert cluster.origin.sent_bytes == cluster.bytes
        assert cluster.origin.root_listings == 1
        assert sum(node.metric("cacheop_origin_bytes_total") for node in cluster.nodes) == (
            cluster.bytes
        )
        came = sum(
            node.metric("cacheop_peer_bytes_total", direction="in") for node in cluster.nodes
        )
        went = sum(
            node.metric("cacheop_peer_bytes_total", direction="out") for node in cluster.nodes
        )
        assert 3 * cluster.bytes <= came == went
        assert {node.metric("cacheop_members") for node in cluster.nodes} == {4}
        assert all(node.metric("cacheop_peer_bans_total") == 0 for node in cluster.nodes)
        assert "Traceback" not in cluster.logs()
        assert "Warning" not in cluster.logs()


def test_zones_read_the_origin_once_each_and_exchange_nothing(tmp_path, files):
    zones = {0: "a", 1: "a", 2: "b", 3: "b"}
    with RunningCluster(tmp_path, files, zones=zones) as cluster:
        cluster.start()
        cluster.read_all()
        assert cluster.origin.sent_bytes == 2 * cluster.bytes
        assert cluster.origin.root_listings == 1
        for node in cluster.nodes:
            before = node.metric("cacheop_peer_bytes_total", same_zone="false")
            assert before < 1 << 20  # the manifest only


def test_a_node_that_joins_cold_half_way_asks_the_others_not_the_origin(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start(0, 1, 2)
        readers = [Reader(cluster.nodes[k], files, k) for k in range(3)]
        cluster.wait_for_bytes(cluster.bytes // 2)
        cluster.start(3, see_each_other=False)
        for reader in [*readers, Reader(cluster.nodes[3], files, 3)]:
            reader.finish()
        assert cluster.origin.sent_bytes <= 1.01 * cluster.bytes
        assert cluster.origin.root_listings == 1


def test_a_node_killed_half_way_is_not_noticed_by_readers_of_the_others(cluster, files):
    before = cluster.origin.sent_bytes
    readers = [Reader(cluster.nodes[k], files, k) for k in range(3)]
    cluster.wait_for_bytes(before + cluster.bytes // 3)
    cluster.nodes[3].kill()
    for reader in readers:
        assert reader.finish().slowest < 20
    # What the dead one had is read again at most once, by whoever acts for it.
    assert cluster.origin.sent_bytes <= before + 1.6 * cluster.bytes
    cluster.settle()
    before = cluster.origin.sent_bytes
    cluster.read_all()
    assert cluster.origin.sent_bytes == before


def test_a_node_that_comes_back_still_has_what_it_had(cluster):
    before = cluster.origin.sent_bytes
    cluster.read_all()
    cluster.nodes[1].kill()
    cluster.settle()
    cluster.start(1)
    cluster.read_all()
    assert cluster.origin.sent_bytes == before + cluster.bytes
    assert cluster.nodes[1].metric("cacheop_origin_bytes_total") == 0
    assert "verified the cache after an unclean stop" in cluster.nodes[1].log.read_text()


def test_an_owner_that_evicted_its_chunks_gets_them_back_from_who_has_copies(cluster):
    before = cluster.origin.sent_bytes
    cluster.read_all()
    cluster.evict(0, 1)  # an owner asks two others, so it meets one that has it
    cluster.read_all()
    assert cluster.origin.sent_bytes <= before + 1.01 * cluster.bytes


def test_suspended_everywhere_what_any_node_has_is_still_read(cluster, files):
    have = {path: data for path, data in files.items() if path < "d2"}
    Reader(cluster.nodes[0], have, 1).finish()
    for node in cluster.nodes:
        node.call("suspend")
    cluster.evict(1, 2, 3)  # only node 0 has all of it
    before = cluster.origin.sent_bytes
    reader = Reader(cluster.nodes[1], have, 2).finish()
    lacking = min(set(files) - set(have))
    with pytest.raises(OSError, match="suspended") as caught:
        reader.filesystem.cat_file(f"data/{lacking}")
    assert caught.value.errno == errno.EBUSY
    assert cluster.origin.sent_bytes == before
    for node in cluster.nodes:
        node.call("resume")
    Reader(cluster.nodes[2], files, 3).finish()


def test_a_member_that_is_paused_delays_no_read_for_long(cluster, files):
    before = cluster.origin.sent_bytes
    readers = [Reader(cluster.nodes[k], files, k) for k in range(3)]
    cluster.wait_for_bytes(before + cluster.bytes // 4)
    cluster.nodes[3].process.send_signal(signal.SIGSTOP)
    try:
        for reader in readers:
            assert reader.finish().slowest < 20
    finally:
        cluster.nodes[3].process.send_signal(signal.SIGCONT)
    cluster.settle()
    cluster.read_all()


def test_a_file_of_the_origin_that_changed_is_an_error_but_copies_are_read(cluster, files):
    Reader(cluster.nodes[0], files, 1).finish()
    cluster.evict(1, 2, 3)
    cluster.put({"d0/f000": b"another one"})
    try:
        Reader(cluster.nodes[1], files, 2).finish()
        cluster.evict()
        with pytest.raises(OSError, match="d0/f000"):
            cluster.nodes[2].filesystem().cat_file("data/d0/f000")
    finally:
        cluster.put({"d0/f000": files["d0/f000"]})
