"""Members that are broken, full, foreign or of another time: right bytes, the cause named."""

import contextlib
import json
import threading
import time

import pytest

from cache_worker.peers import messages
from cacheop.api import wire
from tests.fakes.broken_peer import BrokenPeer
from tests.fakes.running_cluster import TOKEN, Reader, RunningCluster, some_files
from tests.fakes.running_node import wait_for

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

TIERS = {"cache": {"tiers": [{"medium": "Disk", "quota": "1Mi"}]}}


@pytest.fixture(scope="module")
def files():
    return some_files()


def stop_in_mid_frame(sock, request):
    length = request.meta["chunks"][0][2]
    sock.sendall(wire.encode_head(wire.EVENT, request.request_id, {"n": 0}, length))
    sock.sendall(bytes(length // 2))
    time.sleep(20)


def send_other_bytes(sock, request):
    for n, (_, _, length) in enumerate(request.meta["chunks"]):
        if length:
            sock.sendall(wire.encode_head(wire.EVENT, request.request_id, {"n": n}, length))
            sock.sendall(bytes(length))
        checksum = {"n": n, "checksum": "0" * 16}
        sock.sendall(wire.encode(wire.Frame(wire.RESPONSE, request.request_id, checksum)))


def test_members_that_answer_wrongly_spoil_nothing(tmp_path, files):
    with (
        BrokenPeer("n7", TOKEN) as garbage,
        BrokenPeer("n8", TOKEN, send_other_bytes) as liar,
        BrokenPeer("n9", TOKEN, stop_in_mid_frame) as stalled,
        RunningCluster(
            tmp_path, files, 2, others=[(p.node, p.address) for p in (garbage, liar, stalled)]
        ) as cluster,
    ):
        cluster.start(see_each_other=False)
        cluster.read_all()
        assert all("get" in broken.asked for broken in (garbage, liar, stalled))
        assert sum(n.metric("cacheop_peer_bans_total") for n in cluster.nodes) >= 2
        for node in ("n7", "n8"):
            assert f"{node} gave bad bytes and is not asked for a while" in cluster.logs()
        assert "Traceback" not in cluster.logs()


def test_a_chunk_that_rots_on_one_disk_is_noticed_by_who_gets_it_and_dropped_there(tmp_path, files):
    with RunningCluster(tmp_path, files, 3) as cluster:
        cluster.start()
        cluster.read_all(0)
        victim = cluster.nodes[1]  # has what it owns
        stored = [p for p in (victim.root / "data").rglob("f*") if p.is_file()]
        assert stored
        for path in stored:
            rotten = bytearray(path.read_bytes())
            rotten[len(rotten) // 2] ^= 1
            path.write_bytes(rotten)
        Reader(cluster.nodes[2], files, 3).finish()
        assert cluster.nodes[2].metric("cacheop_peer_bans_total", reason="bad_bytes") >= 1
        wait_for(lambda: victim.metric("cacheop_store_errors_total", op="verify") >= 1, 10)
        assert victim.metric("cacheop_evicted_bytes_total") >= 1


def test_a_node_with_another_token_is_no_member_and_says_so(tmp_path, files):
    with RunningCluster(tmp_path, files, 3, tokens={2: "another"}) as cluster:
        cluster.start(see_each_other=False)
        cluster.read_all(0, 1)
        wait_for(lambda: len(live(cluster.nodes[0])) == 2, 15)
        assert live(cluster.nodes[0]) == {"n0", "n1"}
        log = cluster.nodes[2].log.read_text()
        assert "wrong token: this is node n2, asked by node n" in log
        assert log.count("wrong token") < 40  # not once for each attempt
        cluster.read_all(2)  # alone, it serves its own readers


def live(node):
    return {m["node"] for m in node.status()["members"] if m["live"]}


def test_a_node_of_another_protocol_is_told_what_to_do(tmp_path, files):
    with RunningCluster(tmp_path, files, 1) as cluster:
        cluster.start()
        host, _, port = cluster.addresses[0].partition(":")
        import socket

        with socket.create_connection((host, int(port)), 10) as sock:
            decoder = wire.Decoder()
            (challenge,) = frames(sock, decoder)
            assert challenge.meta["op"] == "challenge"
            auth = {
                "op": "auth",
                "purpose": "peer",
                "mac": "0",
                "nonce": "1",
                "node": "n7",
                "zone": "",
                "protocol": messages.PROTOCOL - 1,
            }
            sock.sendall(wire.encode(wire.Frame(wire.REQUEST, 1, auth)))
            (answer,) = frames(sock, decoder)
        assert answer.kind == wire.ERROR
        assert "same cacheop version" in json.dumps(answer.meta)
        wait_for(lambda: "peer protocol 0, we speak 1" in cluster.logs(), 5)


def frames(sock, decoder):
    while True:
        found = list(decoder.feed(sock.recv(1 << 16)))
        if found:
            return found


def test_a_node_without_room_passes_chunks_on(tmp_path, files):
    with RunningCluster(tmp_path, files, 3, specs={1: TIERS}) as cluster:
        cluster.start()
        cluster.read_all()
        filesystem = cluster.nodes[1].filesystem()
        before = cluster.nodes[1].metric("cacheop_peer_bytes_total", direction="in")
        data = files["big/b0"]
        for offset in range(0, 1 << 20, 64 << 10):  # a big chunk in small reads
            piece = filesystem.cat_file("data/big/b0", offset, offset + 1000)
            assert piece == data[offset : offset + 1000]
        moved = cluster.nodes[1].metric("cacheop_peer_bytes_total", direction="in") - before
        assert moved <= 2 * (8 << 20)
        assert cluster.origin.sent_bytes <= 1.01 * cluster.bytes
        assert cluster.nodes[1].status()["used_bytes"] <= 1 << 20


def test_quotas_too_small_for_a_copy_of_everything_keep_what_each_owns(tmp_path):
    files = some_files(small=80, big=0)
    total = sum(map(len, files.values()))
    spec = {"cache": {"tiers": [{"medium": "Disk", "quota": f"{int(total * 0.6)}"}]}}
    with RunningCluster(tmp_path, files, 3, spec=spec) as cluster:
        cluster.start()
        for _ in range(3):
            cluster.read_all()
        assert cluster.origin.sent_bytes <= 1.01 * cluster.bytes
        for node in cluster.nodes:
            assert node.status()["used_bytes"] <= total * 0.6


def test_drained_and_stopped_it_is_not_missed(tmp_path, files):
    with RunningCluster(tmp_path, files, 4) as cluster:
        cluster.start()
        done = []

        def load(node):
            done.append(node.call("load", paths=[], share=True, replicas=1))

        loading = [threading.Thread(target=load, args=(node,)) for node in cluster.nodes]
        for thread in loading:
            thread.start()
        for thread in loading:
            thread.join()
        # Shares add up to the whole, once.
        assert {d["phase"] for d in done} == {"Complete"}
        assert sum(d["bytes"] for d in done) == sum(d["bytes_total"] for d in done) == cluster.bytes
        assert sum(d["files"] for d in done) == len(files)
        used = sum(node.status()["used_bytes"] for node in cluster.nodes)
        assert used == cluster.origin.sent_bytes == cluster.bytes
        before = cluster.origin.sent_bytes
        drained = cluster.nodes[2].call("drain", seconds=30)
        assert (drained["phase"], drained["left"]) == ("Drained", 0)
        cluster.nodes[2].stop()
        cluster.read_all(0, 1, 3)
        assert cluster.origin.sent_bytes == before
        # All of it everywhere.
        cluster.settle()
        for k in (0, 1, 3):
            report = cluster.nodes[k].call("load", paths=[], share=True, replicas="all")
            assert report["phase"] == "Complete"
            assert report["bytes"] == cluster.bytes
            assert cluster.nodes[k].status()["cached_percentage"] == 100.0
        assert cluster.origin.sent_bytes == before


def test_a_refresh_reaches_all_and_who_was_away_before_it_publishes(tmp_path, files):
    with RunningCluster(tmp_path, files, 3) as cluster:
        cluster.start()
        old = cluster.nodes[0].status()["version"]
        listed = cluster.origin.root_listings
        readers = [node.filesystem() for node in cluster.nodes]
        for reader in readers:
            assert reader.cat_file(f"data@{old}/d0/f000") == files["d0/f000"]
        cluster.nodes[2].stop()
        changed = {**files, "d0/f000": b"new bytes", "more/g": bytes(1000)}
        cluster.put({"d0/f000": b"new bytes", "more/g": bytes(1000)})
        new = cluster.nodes[1].call("refresh")["version"]
        assert new != old
        cluster.settle()
        assert cluster.nodes[0].status()["version"] == new
        assert cluster.origin.root_listings == listed + 1
        cluster.nodes[2].start(ready=False)
        assert cluster.nodes[2].call("publish", version="")["version"] == new
        cluster.files = changed
        cluster.read_all()
        for reader in readers[:2]:  # who is bound to the old version keeps it
            assert reader.cat_file(f"data@{old}/d0/f000") == files["d0/f000"]


def test_a_refresh_whose_asker_went_away_reaches_all(tmp_path, files):
    with RunningCluster(tmp_path, files, 3) as cluster:
        cluster.start()
        old = cluster.nodes[0].status()["version"]
        cluster.put({"more/g": bytes(1000)})
        for node in cluster.nodes:
            with contextlib.suppress(TimeoutError, OSError):
                node.call("refresh", seconds=0.4)
        wait_for(lambda: all(n.status()["version"] != old for n in cluster.nodes), 30)
        cluster.settle()
