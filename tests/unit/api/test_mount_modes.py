from __future__ import annotations

import pytest

from cacheop.api import mount_modes

GB = 1 << 30


def facts(
    *,
    complete=False,
    total=1 * GB,
    rows=10_000,
    available=24 * GB,
    file_system="ext4",
    kernel=(6, 18),
) -> mount_modes.Facts:
    return mount_modes.Facts(
        complete=complete,
        total_bytes=total,
        rows=rows,
        available_bytes=available,
        file_system=file_system,
        kernel=kernel,
    )


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        (facts(complete=True), "Native"),
        (facts(), "ZeroOpen"),
        (facts(total=12 * GB), "ZeroOpen"),
        (facts(total=12 * GB + 1), "Passthrough"),
        (facts(file_system="tmpfs"), "Passthrough"),
        (facts(file_system="ramfs"), "Passthrough"),
        (facts(total=20 * GB, kernel=(6, 8)), "Fuse"),
        (facts(total=20 * GB, kernel=(6, 9)), "Passthrough"),
        (facts(total=20 * GB, kernel=(10, 0)), "Passthrough"),
        (facts(total=20 * GB, file_system="overlay"), "Fuse"),
        (facts(available=0, kernel=(5, 10)), "Fuse"),
        (facts(total=0, available=0), "ZeroOpen"),
        (facts(total=0, rows=0), "ZeroOpen"),
        (facts(total=800 << 20, rows=101), "ZeroOpen"),
        (facts(total=800 << 20, rows=100), "Passthrough"),
        (facts(total=800 << 20, rows=100, kernel=(6, 8)), "ZeroOpen"),
        (facts(total=800 << 20, rows=100, complete=True), "Native"),
    ],
)
def test_auto(given, mode):
    assert mount_modes.choose("Auto", given)[0] == mode


@pytest.mark.parametrize("mode", ["ZeroOpen", "Passthrough", "Fuse"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_wish_that_can_be_met_is_met(mode, complete):
    assert mount_modes.choose(mode, facts(complete=complete)) == (mode, "asked for")


@pytest.mark.parametrize(
    ("wish", "given", "mode", "reason"),
    [
        ("Native", facts(), "ZeroOpen", "not every file is in the cache"),
        ("Passthrough", facts(kernel=(6, 1)), "ZeroOpen", "needs Linux 6.9, this is 6.1"),
        ("Passthrough", facts(complete=True, kernel=(6, 1)), "Native", "needs Linux 6.9"),
        ("Passthrough", facts(total=20 * GB, file_system="overlay"), "Fuse", "overlayfs"),
    ],
)
def test_a_wish_that_cannot_be_met_becomes_what_auto_takes(wish, given, mode, reason):
    found, why = mount_modes.choose(wish, given)
    assert found == mode
    assert why.startswith(f"{wish} was asked for, but ")
    assert reason in why
    assert why.endswith(mount_modes.choose("Auto", given)[1])


def test_why_says_how_much_memory_there_is():
    assert mount_modes.choose("Auto", facts(total=2_200_000_000)) == (
        "ZeroOpen",
        "2.0 GiB of 24.0 GiB available memory",
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes(size, text):
    assert mount_modes.size_text(int(size)) == text


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.18.44-fc", (6, 18)), ("6.9", (6, 9)), ("5.4+", (5, 4)), ("x", (0, 0)), ("6", (0, 0))],
)
def test_kernel_versions(release, version):
    assert mount_modes.kernel_version(release) == version


def test_available_memory():
    assert mount_modes.available_bytes("MemTotal: 9 kB\nMemAvailable:  5 kB\n") == 5120
    assert mount_modes.available_bytes("") == 0
