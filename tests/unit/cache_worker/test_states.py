import pytest

from cache_worker import states
from cacheop.api.table import ABSENT, FILLING, GENERATION, PRESENT, STATE_MASK, SUSPECT


def test_a_chunk_that_was_dropped_and_filled_again_shows():
    byte = states.step(states.step(ABSENT, "reserve"), "write")
    again = states.step(states.step(states.step(byte, "drop"), "reserve"), "write")
    assert byte & STATE_MASK == again & STATE_MASK == PRESENT
    assert again == byte + GENERATION


def test_generation_wraps_and_keeps_the_state():
    byte = PRESENT
    for _ in range(64):
        byte = states.step(states.step(states.step(byte, "drop"), "reserve"), "write")
    assert byte == PRESENT


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (ABSENT, "write"),
        (PRESENT, "reserve"),
        (FILLING, "drop"),
        (PRESENT, "verify"),
        (ABSENT, "x"),
    ],
)
def test_illegal_steps_are_refused(state, step):
    with pytest.raises(ValueError, match="illegal step"):
        states.step(state, step)


def test_after_an_unclean_stop_nothing_is_believed():
    before = bytes([ABSENT, FILLING, PRESENT, SUSPECT, PRESENT | 5 * GENERATION])
    after = before.translate(states.AFTER_UNCLEAN_STOP)
    assert list(after) == [ABSENT, ABSENT, SUSPECT, SUSPECT, SUSPECT | 5 * GENERATION]


def test_count_ignores_the_generation():
    assert (
        bytes([PRESENT, PRESENT | GENERATION, ABSENT]).translate(states.STATE_ONLY).count(PRESENT)
        == 2
    )
