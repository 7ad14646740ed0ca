"""The simulation itself, small."""

from benchmarks.placement import place


def test_only_the_leavers_chunks_move():
    placed = place(members=20, chunks=10_000, leaver=7)
    assert placed.owned.sum() == 10_000
    assert placed.others_moved == 0
    assert placed.moved in placed.owned
