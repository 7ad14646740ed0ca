"""Cron schedules: five fields as in crontab(5), or @hourly and the like. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from cacheop.api.errors import SpecError

SEARCH_DAYS = 366 * 8
"""29 February comes at least so often."""
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

# name, lowest, highest, words for the numbers from lowest on
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),  # 0 and 7 are Sunday
)


def parse_cron(text: str) -> tuple[frozenset[int], ...]:
    """The minutes, hours, days of month, months and days of week of a schedule (Sunday is 0).

    Raises SpecError that names the field.
    """
    parts = MACROS.get(text, text).split()
    if len(parts) != len(_FIELDS):
        raise SpecError(
            f'"{text}" has {len(parts)} fields, a schedule has 5: minute hour day month weekday'
        )
    found = [
        frozenset().union(*(_range(entry, *field) for entry in part.split(",")))
        for part, field in zip(parts, _FIELDS, strict=True)
    ]
    found[4] = frozenset(day % 7 for day in found[4])
    return tuple(found)


def _range(entry: str, name: str, low: int, high: int, words: tuple[str, ...]) -> frozenset[int]:
    """The numbers of one entry between commas: *, 5, 1-5, */10, 8-18/2."""
    span, slash, step_text = entry.partition("/")
    step = _number(step_text, name, 1, high, ()) if slash else 1
    if span == "*":
        first, last = low, high
    else:
        first_text, dash, last_text = span.partition("-")
        first = _number(first_text, name, low, high, words)
        last = _number(last_text, name, low, high, words) if dash else first
        if slash and not dash:
            last = high
    if last < first:
        raise SpecError(f'{name} "{entry}" runs backwards')
    return frozenset(range(first, last + 1, step))


def _number(text: str, name: str, low: int, high: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + low
    if text.isascii() and text.isdigit() and len(text) <= 4 and low <= int(text) <= high:
        return int(text)
    raise SpecError(f'{name} "{text}" is not a number from {low} to {high}')


def next_after(schedule: str, moment: datetime) -> datetime | None:
    """The first time of `schedule` after `moment`, to the minute; None when there is none.

    As in cron(8): where both days are given, either will do.
    """
    minutes, hours, days, months, weekdays = parse_cron(schedule)
    any_day, any_weekday = len(days) == 31, len(weekdays) == 7
    found = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(SEARCH_DAYS):
        weekday = (found.weekday() + 1) % 7 in weekdays
        day = found.day in days
        right = (day and weekday) if any_day or any_weekday else (day or weekday)
        if found.month in months and right:
            for hour in sorted(h for h in hours if h >= found.hour):
                first = found.minute if hour == found.hour else 0
                minute = min((m for m in minutes if m >= first), default=None)
                if minute is not None:
                    return found.replace(hour=hour, minute=minute)
        found = found.replace(hour=0, minute=0) + timedelta(days=1)
    return None
