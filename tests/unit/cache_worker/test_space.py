from hypothesis import given
from hypothesis import strategies as st

from cache_worker.space import Space, floor_bytes


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
