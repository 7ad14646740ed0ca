from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.cron import MACROS, next_after, parse_cron
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


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("schedule", "moment", "next_time"),
    [
        ("0 3 * * *", at(2026, 1, 1, 3, 0), at(2026, 1, 2, 3, 0)),
        ("0 3 * * *", at(2026, 1, 1, 2, 59, 59), at(2026, 1, 1, 3, 0)),
        ("*/15 * * * *", at(2026, 1, 1, 23, 50), at(2026, 1, 2, 0, 0)),
        ("30 8-18/5 * * *", at(2026, 1, 1, 9, 0), at(2026, 1, 1, 13, 30)),
        ("0 0 29 2 *", at(2026, 1, 1), at(2028, 2, 29)),
        ("0 0 1 * mon", at(2026, 1, 2), at(2026, 1, 5)),  # either day will do
        ("0 0 * * mon", at(2026, 1, 2), at(2026, 1, 5)),
        ("0 0 31 2 *", at(2026, 1, 1), None),
    ],
)
def test_the_next_time(schedule: str, moment: datetime, next_time: datetime | None) -> None:
    assert next_after(schedule, moment) == next_time


@given(st.integers(0, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_the_next_time_is_later_and_right(moment: datetime) -> None:
    found = next_after("5,35 */3 * * 1-5", moment)
    assert found is not None
    assert moment < found <= moment + timedelta(days=3)
    assert found.minute in (5, 35)
    assert found.hour % 3 == 0
    assert found.weekday() < 5
