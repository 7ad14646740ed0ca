"""What a node gives its peers, over a real store."""

import asyncio
import os
from pathlib import Path

import pytest
import xxhash

from cache_worker.draining import Drain
from cacheop.api.errors import NotFoundError, ProtocolError
from cacheop.api.table import ABSENT, PRESENT
from tests.fakes.origin import MemoryOrigin
from tests.fakes.two_nodes import ASKER, Node, TwoNodes

MIB = 1 << 20


@pytest.fixture
def origin():
    return MemoryOrigin({"a": b"a" * 1000, "b": os.urandom(2000), "big": os.urandom(9 * MIB)})


@pytest.fixture
def node(tmp_path, origin):
    made = Node(tmp_path, origin)
    yield made
    made.cache.close()


def test_what_is_here_is_given_with_the_checksum_of_its_fill(node, origin):
    version = node.cache.add_version()
    row = version.index.resolve("b")
    assert node.giving.open_present(version.name, row, 0) is None
    assert node.giving.open_present("unknown", row, 0) is None
    asyncio.run(node.cache.read(version, "b"))
    chunk = node.giving.open_present(version.name, row, 0)
    data = os.pread(chunk.fd, chunk.length, chunk.offset)
    assert data == origin.objects["b"]
    assert chunk.checksum == xxhash.xxh3_64_intdigest(data)
    assert chunk.still_good()
    node.cache.store.drop_file(version, row)
    assert not chunk.still_good()
    asyncio.run(node.cache.read(version, "b"))
    assert not chunk.still_good()  # filled again: another inode
    chunk.close()


def test_a_chunk_that_there_is_not_is_an_error(node):
    version = node.cache.add_version()
    for row, chunk in ((10_000, 0), (-1, 0), (version.index.resolve("a"), 1)):
        with pytest.raises(NotFoundError):
            node.giving.open_present(version.name, row, chunk)


def test_absent_chunks_are_filled_or_said_to_be_absent(node, origin):
    version = node.cache.add_version()
    row = version.index.resolve("a")

    async def run():
        with pytest.raises(NotFoundError):
            await node.provide(version.name, row, only_if_present=True)
        assert origin.fetched == []
        assert await node.provide(version.name, row) is None
        assert await node.provide(version.name, row, only_if_present=True) is None

    asyncio.run(run())
    assert version.uses == 0


def test_without_room_chunks_pass_through_and_are_remembered(tmp_path, origin):
    node = Node(tmp_path, origin, quota=100, policy="NoEvict")
    version = node.cache.add_version()
    row = version.index.resolve("big")

    async def run():
        for _ in range(2):
            given = await node.provide(version.name, row, 0)
            assert bytes(given.data) == origin.objects["big"][: 8 * MIB]
            assert given.checksum == xxhash.xxh3_64_intdigest(given.data)
        # A reader's part comes from what passed through just now.
        assert await node.cache.read(version, "big", 5, 10) == origin.objects["big"][5:15]

    asyncio.run(run())
    assert origin.fetched == [("big", 0, 8 * MIB)]
    node.cache.close()


def test_a_version_that_is_on_its_way_is_waited_for(node):
    async def run():
        node.following.expected.add("soon")
        loop = asyncio.get_running_loop()
        made = []
        loop.call_later(0.1, lambda: made.append(node.cache.add_version()))
        name = node.cache.origin.index(node.cache.root)
        assert await asyncio.wait_for(node.provide(name, 1), 5) is None
        assert made

    asyncio.run(run())


def test_a_version_that_nobody_has_is_waited_for_once_and_a_dropped_one_never(node):
    async def run():
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(NotFoundError):
            await node.provide("nobody's", 1)
        assert loop.time() - started > 1
        started = loop.time()
        node.cache.versions.gone.add("dropped")
        for _ in range(10):
            for name in ("nobody's", "dropped"):
                with pytest.raises(NotFoundError):
                    await node.provide(name, 1)
        assert loop.time() - started < 1

    asyncio.run(run())


def test_verify_drops_what_rots_and_keeps_what_is_good(node, origin):
    version = node.cache.add_version()

    async def run():
        for path in ("a", "b"):
            await node.cache.read(version, path)
        rotten, good = version.index.resolve("a"), version.index.resolve("b")
        stored = Path(version.path(rotten))
        stored.write_bytes(b"z" + stored.read_bytes()[1:])
        table = node.cache.store.table
        for row, is_good in ((rotten, False), (good, True)):
            meta = {"version": version.name, "row": row, "chunk": 0}
            answer, _ = await node.giving.answer("verify", meta, ASKER)
            assert answer == {"good": is_good}
            state = table.state(version.slots.first_slot(row))
            assert state == (PRESENT if is_good else ABSENT)
        assert node.cache.store.errors["verify"] == 1
        assert await node.cache.read(version, "a") == origin.objects["a"]
        with pytest.raises(ProtocolError):
            await node.giving.answer("verify", {"version": version.name}, ASKER)

    asyncio.run(run())


def test_manifests_are_given_in_pieces(node):
    version = node.cache.add_version()
    whole = (node.cache.root / f"manifest/{version.name}.index").read_bytes()

    async def run():
        got = b""
        while len(got) < len(whole):
            meta = {"version": version.name, "kind": "index", "offset": len(got), "length": 1000}
            answer, piece = await node.giving.answer("file", meta, ASKER)
            assert answer["size"] == len(whole)
            got += piece
        assert got == whole
        for bad in ({"offset": -1}, {"length": 1 << 40}, {"kind": "../state.json"}):
            with pytest.raises(ProtocolError):
                await node.giving.answer("file", {**meta, **bad}, ASKER)

    asyncio.run(run())


def many(count=40):
    return MemoryOrigin({f"f{i}": bytes([i]) * (1000 + i) for i in range(count)} | {"empty": b""})


async def fill(node, version):
    cluster, node.cache.cache.cluster = node.cache.cache.cluster, None
    for path in node.cache.origin.objects:
        await node.cache.read(version, path)
    node.cache.cache.cluster = cluster


def test_a_drain_hands_everything_to_who_stays(tmp_path):
    nodes = TwoNodes(tmp_path, many())

    async def run():
        async with nodes.one, nodes.two:
            await fill(nodes.a, nodes.version)
            before = list(nodes.origin.fetched)
            report = await Drain(nodes.a.cache.store, nodes.one.cluster).run(10)
            assert (report["phase"], report["left"]) == ("Drained", 0)
            assert report["chunks"] == report["chunks_total"] == 41
            assert report["bytes"] == report["bytes_total"] == nodes.version.index.bytes
            assert nodes.one.cluster.my_facts.draining
            there = nodes.b.cache.versions.get()
            for path, data in nodes.origin.objects.items():
                assert await nodes.b.cache.read(there, path) == data
            assert nodes.origin.fetched == before

    asyncio.run(run())
    nodes.close()


def test_a_drain_that_nobody_answers_is_late_and_says_how_much_is_left(tmp_path):
    nodes = TwoNodes(tmp_path, many())

    async def run():
        async with nodes.one, nodes.two:
            await fill(nodes.a, nodes.version)

            async def silent(*_):
                await asyncio.sleep(0.1)
                raise NotFoundError("no")

            nodes.one.peers.ask = silent
            report = await asyncio.wait_for(Drain(nodes.a.cache.store, nodes.one.cluster).run(1), 5)
            assert (report["phase"], report["left"], report["chunks"]) == ("Late", 41, 0)

    asyncio.run(run())
    nodes.close()


def test_copies_go_before_what_is_owned_and_never_push_it_out(tmp_path):
    origin = many(200)
    total = sum(map(len, origin.objects.values()))
    nodes = TwoNodes(tmp_path, origin, quota=total // 2)
    store, cluster, version = nodes.a.cache.store, nodes.one.cluster, nodes.version

    def held(owned):
        rows = (version.index.resolve(path) for path in origin.objects)
        return sum(
            version.index.size(row)
            for row in rows
            if store.is_present(version, row, 0) and (0 in cluster.owned(version, row)) == owned
        )

    async def run():
        async with nodes.one, nodes.two:
            ours = [
                p for p in origin.objects if 0 in cluster.owned(version, version.index.resolve(p))
            ]
            theirs = [p for p in origin.objects if p not in ours]
            nodes.a.cache.cache.cluster = None
            for path in theirs:  # fills it with what it does not own, as if it did
                store.victims.owned, kept = None, store.victims.owned
                await nodes.a.cache.read(version, path)
                store.victims.owned = kept
            assert held(owned=False) > 0
            nodes.a.cache.cache.cluster = cluster
            cluster.adopted(version.name, [])
            some = ours[: len(ours) * 3 // 4]
            for path in some:
                assert await nodes.a.cache.read(version, path) == origin.objects[path]
            assert held(owned=True) == sum(len(origin.objects[p]) for p in some)
            before = held(owned=True)
            for path in theirs:
                row = version.index.resolve(path)
                if not store.is_present(version, row, 0) and store.reserve(
                    version, row, 0, copy=True
                ):
                    store.abandon(version, row, 0)
            store.evict(10_000, only_copies=True)
            assert held(owned=True) == before
            assert store.space.used_bytes <= store.space.quota_bytes

    asyncio.run(run())
    nodes.close()


def test_of_a_big_file_the_owned_chunks_stay(tmp_path):
    origin = MemoryOrigin({"big": os.urandom(40 * MIB)})
    nodes = TwoNodes(tmp_path, origin)
    store, cluster, version = nodes.a.cache.store, nodes.one.cluster, nodes.version
    row = version.index.resolve("big")

    async def run():
        async with nodes.one, nodes.two:
            nodes.a.cache.cache.cluster = None
            for chunk in range(4):  # not all of it: readers hold it else
                assert await nodes.a.cache.cache.ensure(version, row, chunk) is True
            nodes.a.cache.cache.cluster = cluster
            owned = cluster.owned(version, row) & set(range(4))
            gone = store.evict(1, only_copies=True)
            assert gone == (4 - len(owned)) * 8 * MIB
            here = {chunk for chunk in range(5) if store.is_present(version, row, chunk)}
            assert here == owned
            assert store.space.used_bytes == len(owned) * 8 * MIB

    asyncio.run(run())
    nodes.close()


def test_a_peer_is_not_made_to_wait_for_a_question_that_was_put_to_itself(tmp_path):
    """Our reader's fill asks `b`; while it does, `b` asks us, as it sees other members."""
    nodes = TwoNodes(tmp_path, many())
    version = nodes.version

    async def run():
        async with nodes.one, nodes.two:
            rows = [version.index.resolve(path) for path in nodes.origin.objects]
            row = next(r for r in rows if not nodes.one.cluster.owned(version, r))
            gate = asyncio.Event()

            async def answer():
                await gate.wait()
                return nodes.origin.objects[version.index.path(row)]

            nodes.one.peers.give["b"] = answer
            reading = asyncio.create_task(nodes.a.cache.cache.ensure(version, row, 0))
            await asyncio.sleep(0.01)
            given = await asyncio.wait_for(nodes.a.provide(version.name, row), 5)
            assert bytes(given.data) == nodes.origin.objects[version.index.path(row)]
            assert not reading.done()
            gate.set()
            assert await asyncio.wait_for(reading, 5) is True
            assert nodes.a.cache.store.space.reserved_bytes == 0

    asyncio.run(run())
    nodes.close()
