"""Several workers are one cache: each byte leaves the origin once, whoever comes, goes or dies."""

import pytest

from tests.fakes.running_cluster import Reader, RunningCluster, some_files
from tests.fakes.running_node import wait_for

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


@pytest.fixture
def files():
    return some_files()


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


def test_a_node_killed_half_way_is_not_noticed_by_readers_of_the_others(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        readers = [Reader(cluster.nodes[k], files, k) for k in range(3)]
        cluster.wait_for_bytes(cluster.bytes // 3)
        cluster.nodes[3].kill()
        for reader in readers:
            assert reader.finish().slowest < 20
        # What the dead one had is read again at most once, by whoever acts for it.
        assert cluster.origin.sent_bytes <= 1.6 * cluster.bytes
        cluster.settle()
        before = cluster.origin.sent_bytes
        cluster.read_all()
        assert cluster.origin.sent_bytes == before


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


def test_a_node_that_comes_back_still_has_what_it_had(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        cluster.read_all()
        cluster.nodes[1].kill()
        cluster.settle()
        cluster.start(1)
        cluster.read_all()
        assert cluster.origin.sent_bytes == cluster.bytes
        assert cluster.nodes[1].metric("cacheop_origin_bytes_total") == 0


def test_an_owner_that_evicted_its_chunks_gets_them_back_from_who_has_copies(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        cluster.read_all()
        for k in range(3):
            cluster.nodes[k].call("evict", paths=[])
        cluster.read_all()
        assert cluster.origin.sent_bytes <= 1.01 * cluster.bytes


def test_suspended_everywhere_what_any_node_has_is_still_read(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        have = {path: data for path, data in files.items() if path < "d2"}
        Reader(cluster.nodes[0], have, 1).finish()
        for node in cluster.nodes:
            node.call("suspend")
        for k in range(1, 4):  # only node 0 has all of it
            cluster.nodes[k].call("evict", paths=[])
        before = cluster.origin.sent_bytes
        reader = Reader(cluster.nodes[1], have, 2).finish()
        lacking = sorted(set(files) - set(have))[0]
        with pytest.raises(OSError, match="suspended") as caught:
            reader.filesystem.cat_file(f"data/{lacking}")
        assert caught.value.errno == 16
        assert cluster.origin.sent_bytes == before
        for node in cluster.nodes:
            node.call("resume")
        Reader(cluster.nodes[2], files, 3).finish()


def test_a_file_of_the_origin_that_changed_is_an_error_but_copies_are_read(tmp_path, files):
    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        Reader(cluster.nodes[0], files, 1).finish()
        for k in range(1, 4):
            cluster.nodes[k].call("evict", paths=[])
        cluster.put({"d0/f000": b"another one"})
        Reader(cluster.nodes[1], files, 2).finish()
        for node in cluster.nodes:
            node.call("evict", paths=[])
        filesystem = cluster.nodes[2].filesystem()
        with pytest.raises(OSError, match="d0/f000"):
            filesystem.cat_file("data/d0/f000")


def test_a_member_that_is_paused_delays_no_read_for_long(tmp_path, files):
    import signal

    with RunningCluster(tmp_path, files) as cluster:
        cluster.start()
        readers = [Reader(cluster.nodes[k], files, k) for k in range(3)]
        cluster.wait_for_bytes(cluster.bytes // 4)
        cluster.nodes[3].process.send_signal(signal.SIGSTOP)
        try:
            for reader in readers:
                assert reader.finish().slowest < 20
        finally:
            cluster.nodes[3].process.send_signal(signal.SIGCONT)
        wait_for(cluster.is_settled, 20)
        cluster.read_all()
