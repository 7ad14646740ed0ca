"""Plans over a real cache and an origin in memory; no sockets."""

import asyncio
import random

import pytest

from cache_worker.planning.planning import Planning
from cache_worker.reading import Reading
from cacheop.api.dataset import Prefetch
from cacheop.api.errors import OriginError, ProtocolError
from cacheop.api.plan import ROWS, SEGMENT_READS, SPANS, Reads, unpack
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

MIB = 1 << 20
FILES, LENGTH = 300, 1000


class Node(NodeCache):
    def __init__(self, root, files, *, prefetch=None, **more):
        super().__init__(root, MemoryOrigin(files), policy="Auto", **more)
        self.version = self.add_version()
        self.reading = Reading(self.store.policy)
        self.planning = Planning(self.cache, self.reading, lambda: prefetch or Prefetch())
        self.paths = sorted(files)

    def row(self, path):
        return self.version.index.resolve(path)

    def tell(self, paths, *, connection="c", reader="job", epoch=0, rank=0, begin=True, at=0):
        reads = Reads()
        for path in paths:
            reads.rows.append(self.row(path))
        kind, payload = reads.pack(0, len(reads))
        meta = {"epoch": epoch, "rank": rank, "kind": kind, "begin": begin, "at": at}
        return self.planning.plan(connection, reader, self.version, meta, payload)

    def reached(self, place, *, connection="c", reader="job", epoch=0, rank=0):
        meta = {"rank": rank, "reached": [epoch, place]}
        return self.planning.plan(connection, reader, self.version, meta, b"")

    def heard(self, path, *, connection="r", reader="job"):
        size = self.version.index.size(self.row(path))
        self.reading.read(connection, reader, self.version, self.row(path), 0, size)

    async def quiet(self):
        """Until nothing is fetched ahead any more."""
        before = -1
        while before != len(self.origin.fetched) or self.planning._running:
            before = len(self.origin.fetched)
            await asyncio.sleep(0.05)

    def run(self, work):
        async def with_planning():
            running = asyncio.create_task(self.planning.run())
            try:
                await asyncio.wait_for(work(), 20)
            finally:
                running.cancel()

        asyncio.run(with_planning())


@pytest.fixture
def files():
    return {f"f{i:03}": random.Random(i).randbytes(LENGTH) for i in range(FILES)}


@pytest.fixture
def node(tmp_path, files):
    node = Node(tmp_path, files)
    yield node
    node.close()


def test_what_is_planned_is_fetched_in_its_order_within_the_window(node):
    order = random.Random(1).sample(node.paths, FILES)

    async def work():
        assert node.tell(order) == "kept"
        await node.quiet()
        assert [path for path, _, _ in node.origin.fetched] == order[:64]
        for path in order[:100]:
            assert await node.read(node.version, path) == node.origin.objects[path]
            node.heard(path)
        await node.quiet()
        # Each once, whoever came first: the reader or the plan.
        assert sorted(path for path, _, _ in node.origin.fetched) == sorted(order[:164])

    node.run(work)
    assert node.cache.counters.planned_bytes >= 64 * LENGTH


def test_ranks_are_merged_by_when_they_need_it(node):
    async def work():
        node.tell(node.paths[:100], rank=0)
        node.tell(node.paths[100:200], rank=1)
        await node.quiet()
        first = [node.paths.index(path) for path, _, _ in node.origin.fetched[:60]]
        assert 20 <= sum(number < 100 for number in first) <= 40
        assert len(node.planning.status()) == 2

    node.run(work)


@pytest.mark.parametrize(("reader", "unread"), [("job", 0), ("", 0), ("another", 64)])
def test_whose_reads_they_may_be(node, reader, unread):
    """Also those that join a fetch under way: they are heard before it ends."""

    async def work():
        node.origin.gate.clear()
        node.tell(node.paths)
        await asyncio.sleep(0.1)
        for path in node.paths[:64]:
            node.heard(path, reader=reader)
        node.origin.gate.set()
        await asyncio.sleep(0.3)
        order = next(iter(node.planning._ranks.values())).order
        assert order.fetched == 64 + order.cursor
        assert order.unread_bytes == (unread + order.cursor) * LENGTH

    node.run(work)


def test_who_hangs_up_wants_nothing_any_more(node):
    async def work():
        node.tell(node.paths)
        await node.quiet()
        node.planning.gone("c")
        assert node.planning.status() == []
        assert node.reached(5) == "unknown"
        before = len(node.origin.fetched)
        node.heard(node.paths[100])
        await node.quiet()
        assert len(node.origin.fetched) == before

    uses = node.version.uses
    node.run(work)
    assert node.version.uses == uses


def test_a_wrong_plan_costs_a_quarter_of_the_room_at_most(tmp_path, files):
    node = Node(tmp_path, files, quota=100 * LENGTH)

    async def work():
        node.tell(node.paths * 20)
        for place in range(0, 20 * FILES, 50):
            node.reached(place)
            await node.quiet() if place % 500 == 0 else await asyncio.sleep(0)
        await node.quiet()

    node.run(work)
    assert len(node.origin.fetched) <= 26
    node.close()


def test_what_nobody_reads_ends_the_plan(tmp_path):
    files = {f"f{i:05}": b"x" for i in range(20_000)}
    node = Node(tmp_path, files)

    async def work():
        node.tell(node.paths[:8000])
        node.tell(node.paths[8000:16_000], begin=False, at=8000)
        state = "kept"
        for place in range(0, 16_000, 16):
            state = node.reached(place)
            if state != "kept":
                break
            await asyncio.sleep(0.001)
        assert state == "wrong"
        assert node.tell(node.paths[:10]) == "wrong"
        node.planning.gone("c")
        assert node.tell(node.paths[:10]) == "kept"

    node.run(work)
    node.close()


def test_an_origin_that_fails_is_left_alone_for_a_while(node):
    async def work():
        for path in node.paths:
            node.origin.errors[path] = OriginError("broken")
        node.tell(node.paths)
        await asyncio.sleep(1.0)
        assert len(node.origin.fetched) <= 64
        node.origin.errors.clear()
        for path in node.paths[:10]:
            assert await node.read(node.version, path) == node.origin.objects[path]
            node.heard(path)
        await asyncio.sleep(2.5)
        assert node.cache.counters.planned_bytes

    node.run(work)


@pytest.mark.parametrize(
    ("prefetch", "state"), [(Prefetch(mode="Off"), "off"), (Prefetch(mode="Plan"), "kept")]
)
def test_prefetch_can_be_forbidden(tmp_path, files, prefetch, state):
    node = Node(tmp_path, files, prefetch=prefetch)

    async def work():
        assert node.tell(node.paths) == state
        await node.quiet()
        assert bool(node.origin.fetched) == (state == "kept")

    node.run(work)
    node.close()


def test_a_suspended_dataset_fetches_nothing(node):
    async def work():
        node.cache.suspended = True
        node.tell(node.paths)
        await node.quiet()
        assert not node.origin.fetched

    node.run(work)


def test_the_part_of_a_big_file_that_is_read_is_fetched(tmp_path):
    node = Node(tmp_path, {"big": bytes(30 * MIB), "dir/small": b"1"})

    async def work():
        reads = Reads()
        reads.rows.append(node.row("big"))
        reads.extend(Reads(reads.rows[:], reads.rows[:0] + type(reads.rows)("I", [1, 2])))
        reads.rows.append(node.row("dir"))
        reads.chunks.extend([0, 0])
        kind, payload = reads.pack(1, 3)
        assert kind == SPANS
        meta = {"epoch": 0, "kind": kind, "begin": True, "at": 0}
        assert node.planning.plan("c", "job", node.version, meta, payload) == "kept"
        await node.quiet()
        assert sorted(node.origin.fetched) == [
            ("big", 8 * MIB, 8 * MIB),
            ("big", 16 * MIB, 8 * MIB),
        ]

    node.run(work)
    node.close()


def test_what_makes_no_sense_is_refused(node):
    reads = Reads()
    reads.rows.extend([0, 1, 4_000_000_000])
    good = reads.pack(0, 3)[1]
    for kind, payload in ((ROWS, b"123"), ("x", good), (ROWS, bytes(4 * SEGMENT_READS + 4))):
        with pytest.raises(ProtocolError):
            unpack(kind, payload)
    meta = {"epoch": -1, "kind": ROWS, "begin": True, "at": 0}
    with pytest.raises(ProtocolError):
        node.planning.plan("c", "job", node.version, meta, good)
    meta = {"epoch": 0, "kind": ROWS, "begin": True, "at": 0}
    assert node.planning.plan("c", "job", node.version, meta, good) == "kept"
    with pytest.raises(ProtocolError):
        node.planning.plan("c", "job", node.version, {**meta, "begin": False, "at": 9}, good)
    assert unpack(*reads.pack(1, 3)).rows == reads.rows[1:]


def test_two_jobs_keep_what_either_needs_soon(tmp_path, files):
    node = Node(tmp_path, files, quota=int(FILES / 2 * LENGTH))
    orders = {
        job: [random.Random(f"{job}{epoch}").sample(node.paths, FILES) for epoch in range(4)]
        for job in ("a", "b")
    }

    async def work():
        for job, epochs in orders.items():
            for number, order in enumerate(epochs[:2]):
                node.tell(order, connection=job, reader=job, epoch=number)
        for number in range(4):
            for place in range(FILES):
                for job, epochs in orders.items():
                    node.reached(place + 1, connection=job, reader=job, epoch=number)
                    path = epochs[number][place]
                    node.heard(path, connection=f"{job}r", reader=job)
                    assert await node.read(node.version, path) == node.origin.objects[path]
            for job, epochs in orders.items():
                if number + 2 < 4:
                    order = epochs[number + 2]
                    node.tell(order, connection=job, reader=job, epoch=number + 2)

    node.run(work)
    # 2 jobs x 4 epochs; without plans a hit ratio of 0.5 at most, so 5 Datasets of the 8 read.
    assert len(node.origin.fetched) < 4.2 * FILES
    node.close()
