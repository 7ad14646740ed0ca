from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.dataset import Deletion
from cacheop.operator.deletion import GIVE_UP_SECONDS, step, words
from tests.fakes.cluster_facts import NOW, user

POD = user("train", "a")


def test_it_says_who_is_waited_for():
    found = step(Deletion(), [POD], NOW, NOW + 1, ["volume"])
    assert found.waits == "in use by pod team/train"
    assert not found.remove
    assert not found.release
    assert found.again_at == NOW + 600
    many = [user(f"p{k}", "a") for k in range(7)]
    assert words(many).endswith("team/p4 and 2 more")


def test_force_waits_for_nobody():
    assert step(Deletion(when_mounted="Force"), [POD], NOW, NOW, ["volume"]).remove


def test_volumes_go_first_then_the_dataset():
    found = step(Deletion(), [], NOW, NOW, ["volume"])
    assert found.remove
    assert not found.release
    assert step(Deletion(), [], NOW, NOW, []).release


@given(
    st.sampled_from(["Wait", "Force"]),
    st.floats(0, 1e6),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1e7),
)
def test_it_always_ends(when, timeout, used, remaining, later):
    rule = Deletion(when_mounted=when, timeout_seconds=timeout)
    users = [POD] if used else []
    found = step(rule, users, NOW, NOW + later, ["volume"] if remaining else [])
    if later >= timeout + GIVE_UP_SECONDS:
        assert found.release
    assert found.release or (found.again_at is not None and found.again_at > NOW + later)
