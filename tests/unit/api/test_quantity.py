from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.errors import SpecError
from cacheop.api.quantity import (
    MAX_BYTES,
    MAX_SECONDS,
    format_duration,
    format_quantity,
    parse_duration,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        (0, 0),
        (7, 7),
        ("500Gi", 500 << 30),
        ("1.5T", 1_500_000_000_000),
        ("1.5Ki", 1536),
        ("0.1Ki", 103),  # rounded up, as Kubernetes does
        ("2e9", 2_000_000_000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("7Ei", 7 << 60),
        ("10k", 10_000),
    ],
)
def test_sizes(text: str | int, size_bytes: int) -> None:
    assert parse_quantity(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("500GB", '"500G"'),
        ("500GiB", '"500Gi"'),
        ("500gi", '"500Gi"'),
        ("10K", '"10k"'),
        ("100m", '"100M"'),
        ("5 Gi", '"5Gi"'),
        ("", "not a size"),
        ("-1", "not a size"),
        (-1, "between 0"),
        ("1_000", "not a size"),
        ("٣Gi", "not a size"),
        ("8Ei", "more than 8Ei"),
        (2**63, "between 0"),
        ("1e99", "more than 8Ei"),
        (1.5, "not a size"),
        (True, "not a size"),
        (None, "not a size"),
        ("9" * 1000, "not a size"),
        ("1Gi\n", "not a size"),
    ],
)
def test_what_is_no_size_is_refused_with_help(text: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_quantity(text)


@given(st.integers(0, MAX_BYTES))
def test_every_size_comes_back(size_bytes: int) -> None:
    assert parse_quantity(format_quantity(size_bytes)) == size_bytes


@given(st.integers(0, 4000), st.sampled_from(["Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"]))
def test_round_sizes_are_written_short(count: int, suffix: str) -> None:
    assert len(format_quantity(parse_quantity(f"{count}{suffix}"))) <= len(f"{count}{suffix}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("30d", 2_592_000),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("2w", 1_209_600),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10", 'write "10s"'),
        (10, 'write "10s"'),
        ("10 m", "not a duration"),
        ("-1s", "not a duration"),
        ("m", "not a duration"),
        ("1y", "not a duration"),
        ("36501d", "100 years"),
        (True, "not a duration"),
        (None, "not a duration"),
        ("1m\n", "not a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_help(text: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_duration(text)


@given(st.integers(0, int(MAX_SECONDS) * 10**6))
def test_every_duration_comes_back(microseconds: int) -> None:
    seconds = microseconds / 10**6
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.from_type(object) | st.text(max_size=40) | st.floats() | st.integers())
def test_anything_is_a_value_or_a_spec_error(value: object) -> None:
    for parse in (parse_quantity, parse_duration):
        with contextlib.suppress(SpecError):
            assert parse(value) >= 0
