import pytest

from cache_worker.eviction.policy import Policy
from cache_worker.reading import IDLE_JOBS, Reading
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

MIB = 1 << 20


class Heard(Policy):
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def joined(self, stream, chunks):
        self.told.append(("joined", stream, chunks))

    def left(self, stream):
        self.told.append(("left", stream))

    def read(self, stream, slots, units=None):
        self.told.append((stream, list(slots), units and list(units)))

    def reads(self):
        return [told for told in self.told if not isinstance(told[0], str)]


@pytest.fixture
def node(tmp_path):
    node = NodeCache(tmp_path, MemoryOrigin({"big": bytes(20 * MIB), "s1": b"1", "s2": b"2"}))
    yield node
    node.close()


@pytest.fixture
def version(node):
    return node.add_version()


def slot(version, path, chunk=0):
    return version.slots.first_slot(version.index.resolve(path)) + chunk


def test_connections_of_one_job_are_one_stream(version):
    policy = Heard()
    reading, row = Reading(policy), version.index.resolve("s1")
    reading.read("a", "job", version, row, 0, 1)
    reading.read("b", "job", version, row, 0, 1)
    reading.read("c", "", version, row, 0, 1)
    reading.read("d", "", version, row, 0, 1)
    assert [told[0] for told in policy.reads()] == [1, 1, 2, 3]
    for connection in "abc":
        reading.closed(connection)
    assert [told for told in policy.told if told[0] == "left"] == [("left", 2)]
    reading.read("e", "job", version, row, 0, 1)  # its next epoch's loader process
    assert policy.reads()[-1][0] == 1


def test_of_jobs_that_do_not_come_back_the_oldest_are_forgotten(version):
    policy = Heard()
    reading, row = Reading(policy), version.index.resolve("s1")
    for number in range(IDLE_JOBS + 3):
        reading.read(number, f"job {number}", version, row, 0, 1)
        reading.closed(number)
    assert [told for told in policy.told if told[0] == "left"] == [("left", n) for n in (1, 2, 3)]


def test_a_stream_is_told_with_the_slots_of_its_version(version):
    policy = Heard()
    Reading(policy).read("a", "", version, version.index.resolve("s1"), 0, 1)
    assert policy.told[0] == ("joined", 1, version.slots_range())
    assert len(version.slots_range()) == 5


def test_pieces_of_a_chunk_are_one_read_of_it(version):
    policy = Heard()
    reading, row = Reading(policy), version.index.resolve("big")
    for offset in range(0, 20 * MIB, MIB):
        reading.read("a", "", version, row, offset, MIB)
    assert [told[1] for told in policy.reads()] == [[slot(version, "big", c)] for c in range(3)]
    reading.read("a", "", version, row, 0, 20 * MIB)
    assert policy.reads()[-1][1:] == ([slot(version, "big", c) for c in range(3)], [64, 64, 64])


def test_a_read_past_the_end_is_none(version):
    policy = Heard()
    Reading(policy).read("a", "", version, version.index.resolve("s1"), 5, 10)
    assert policy.reads() == []


def test_what_was_read_without_asking_keeps_its_order(version):
    policy = Heard()
    index = version.index
    rows = {index.resolve("s2"): 1, index.resolve("big"): 9, index.resolve("s1"): 7}
    Reading(policy).touched("a", "", version, rows)
    s1, s2 = slot(version, "s1"), slot(version, "s2")
    assert policy.reads() == [(1, [s2, s1, s1], None)]  # of the big one nobody knows which part


def test_a_peer_is_a_stream(version):
    policy = Heard()
    Reading(policy).asked("node-1", version, slot(version, "s1"))
    assert policy.reads() == [(1, [slot(version, "s1")], None)]


def test_who_wants_to_know_hears_of_reads_with_their_reader(version):
    told = []
    reading = Reading(Heard())
    reading.heard = lambda *heard: told.append(heard)
    row = version.index.resolve("s1")
    reading.read("a", "job", version, row, 0, 1)
    reading.touched("b", "", version, {row: 1, version.index.resolve("big"): 1})
    reading.asked("node", version, slot(version, "s1"))  # a neighbour's readers are not ours
    assert told == [
        ("job", version, [slot(version, "s1")]),
        ("", version, [slot(version, "s1")]),
    ]


def test_a_plan_is_of_its_jobs_stream(version):
    policy = Heard()
    policy.planned = lambda *told: policy.told.append(("planned", *told))
    policy.reached = lambda *told: policy.told.append(("reached", *told))
    policy.unplanned = lambda *told: policy.told.append(("unplanned", *told))
    reading = Reading(policy)
    reading.read("a", "job", version, version.index.resolve("s1"), 0, 1)
    reading.planned("b", "job", version, [3, 4], [0, 1], 2)
    reading.reached("b", "job", version, 7)
    reading.unplanned("b", "job", version)
    reading.unplanned("b", "nobody", version)
    assert [told for told in policy.told if "ned" in str(told[0]) and told[0] != "joined"] == [
        ("planned", 1, [3, 4], [0, 1], 2),
        ("unplanned", 1),
    ]
    assert ("reached", 1, 7) in policy.told
