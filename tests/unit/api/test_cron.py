from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.cron import MACROS, parse_cron
from cacheop.api.errors import SpecError


def test_every_form_of_a_field() -> None:
    minutes, hours, days, months, weekdays = parse_cron("*/20,5 8-18/5 1,15 JAN-mar 1-5,7")
    assert minutes == {0, 5, 20, 40}
    assert hours == {8, 13, 18}
    assert days == {1, 15}
    assert months == {1, 2, 3}
    assert weekdays == {0, 1, 2, 3, 4, 5}


def test_a_step_from_a_number_runs_to_the_end() -> None:
    assert parse_cron("50/3 * * * *")[0] == {50, 53, 56, 59}


@pytest.mark.parametrize("macro", MACROS)
def test_macros(macro: str) -> None:
    assert parse_cron(macro) == parse_cron(MACROS[macro])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * fry", "day of week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "backwards"),
        ("1, * * * *", "minute"),
        ("@dayly", "fields"),
    ],
)
def test_a_wrong_schedule_names_the_field(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_cron(text)


@given(st.text("0123456789*/-, @adilymontuejan", max_size=24) | st.text(max_size=12))
def test_any_text_is_a_schedule_or_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert all(parse_cron(text))
