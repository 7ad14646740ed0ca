from hypothesis import given
from hypothesis import strategies as st

from cache_worker.space import PATIENCE_LOOKS, Space, floor_bytes


def test_the_quota_is_never_promised_twice():
    space = Space(100)
    assert space.reserve(60)
    assert not space.reserve(41)
    space.commit(60)
    assert space.missing(41) == 1
    space.dropped(60)
    assert space.reserve(100)


def test_the_disk_limits_when_it_has_less_than_the_quota():
    space = Space(1 << 40)
    space.saw_disk(available_bytes=10 << 20, disk_bytes=100 << 20)
    assert space.limit_bytes == (10 << 20) - floor_bytes(100 << 20)
    assert space.reserve(space.limit_bytes)
    assert space.is_short_of_disk


def test_marks():
    space = Space(1000, high=0.9, low=0.5, used_bytes=900)
    assert space.above_high() == 0
    space.used_bytes = 901
    assert space.above_high() == 401


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "commit", "release", "drop"]), st.integers(0, 50))
    )
)
def test_used_and_reserved_never_pass_the_limit(steps):
    space, reserved, used = Space(100), [], []
    for step, length in steps:
        if step == "reserve" and space.reserve(length):
            reserved.append(length)
        elif step == "commit" and reserved:
            used.append(reserved.pop())
            space.commit(used[-1])
        elif step == "release" and reserved:
            space.release(reserved.pop())
        elif step == "drop" and used:
            space.dropped(used.pop())
        assert space.used_bytes == sum(used)
        assert space.reserved_bytes == sum(reserved)
        assert space.used_bytes + space.reserved_bytes <= 100


def short_of_disk():
    """A disk with nothing free above its floor, all of it ours."""
    space = Space(1 << 40, high=0.9, used_bytes=1000)
    space.saw_disk(floor_bytes(10_000), 10_000)
    assert space.limit_bytes == 1000
    return space


def test_what_readers_hold_is_not_evicted_for_twice():
    space = short_of_disk()
    assert space.above_high() == 150
    space.dropped(150, may_be_held=True)
    space.saw_disk(floor_bytes(10_000), 10_000)  # readers hold the files: nothing came free
    assert space.returning_bytes == 150
    assert space.above_high() == space.to_evict(50) == 0
    assert not space.reserve(1)  # but there is no room either: read through
    space.saw_disk(floor_bytes(10_000) + 150, 10_000)  # they let go
    assert space.returning_bytes == 0
    assert space.reserve(150)


def test_more_is_evicted_than_what_returns_when_more_is_needed():
    space = short_of_disk()
    space.dropped(150, may_be_held=True)
    space.saw_disk(floor_bytes(10_000), 10_000)
    assert space.to_evict(200) == 135  # from 1050 to 765, and 150 return


def test_others_who_write_are_not_taken_for_readers():
    space = short_of_disk()
    space.saw_disk(floor_bytes(10_000) - 500, 10_000)
    assert space.returning_bytes == 0
    assert space.above_high() > 500


def test_what_others_took_is_not_waited_for_for_ever():
    space = short_of_disk()
    space.dropped(400, may_be_held=True)
    for _ in range(PATIENCE_LOOKS + 1):
        space.saw_disk(floor_bytes(10_000), 10_000)
    assert space.returning_bytes == 200


def test_the_quota_does_not_wait_for_the_disk():
    space = short_of_disk()
    space.dropped(400, may_be_held=True)
    space.saw_disk(floor_bytes(10_000), 10_000)
    space.quota_bytes = 300
    assert space.to_evict(0) == 330
