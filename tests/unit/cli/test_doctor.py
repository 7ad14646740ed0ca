"""The doctor's findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cacheop.cli import mount_modes, probes
from cacheop.cli.doctor import mount_findings

BASE = "kind: Dataset\napiVersion: cacheop.io/v1alpha1\nmetadata: {name: demo}\nspec:\n  mounts:\n"


@pytest.mark.parametrize(
    ("release", "level"),
    [("6.9.0", "OK"), ("6.18.44-x", "OK"), ("7.0", "OK"), ("6.8.12-aws", "WARN"), ("?", "WARN")],
)
def test_kernel(release, level):
    assert probes.kernel(release).level == level


def test_the_file_system_of_a_path():
    assert probes.file_system_type(Path("/proc")) == "proc"
    assert probes.file_system(Path("/proc")).level == "OK"


def test_the_nearest_directory_that_is_there(tmp_path):
    assert probes.existing_parent(tmp_path / "a" / "b") == tmp_path
    assert probes.writable(tmp_path / "a", tmp_path).level == "OK"
    assert probes.writable(Path("/proc/x"), Path("/proc")).level == "FAIL"


def test_disk_speed_leaves_nothing(tmp_path):
    finding = probes.disk_speed(tmp_path)
    assert "MB/s" in finding.found
    assert list(tmp_path.iterdir()) == []


def doctor(cacheop, code, *arguments):
    done = cacheop("doctor", *arguments, "-o", "json")
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is (code == 0)
    return {check["what"]: check for check in found["checks"]}


def test_a_dataset_whose_origin_answers(cacheop, tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    file = tmp_path / "d.yaml"
    file.write_text(BASE + f'  - mountPoint: "file://{origin}"\n')
    empty = doctor(cacheop, 1, "-f", file)
    assert empty["demo: origin"]["level"] == "FAIL"
    assert "holds nothing" in empty["demo: origin"]["found"]
    (origin / "x").touch()
    checks = doctor(cacheop, 0, "-f", file)
    assert checks["demo: origin"]["level"] == "OK"
    assert checks["demo: credentials"]["level"] == "OK"
    assert checks["cache directory"]["level"] == "OK"


def test_an_origin_that_is_not_there(cacheop, tmp_path):
    file = tmp_path / "d.yaml"
    options = "{endpoint_url: 'http://127.0.0.1:1', anon: true}"
    file.write_text(BASE + f"  - {{mountPoint: 's3://b/', options: {options}}}\n")
    checks = doctor(cacheop, 1, "-f", file)
    assert "127.0.0.1:1" in checks["demo: origin"]["found"]
    assert "endpoint_url" in checks["demo: origin"]["todo"]


def test_a_broken_file_and_missing_secrets(cacheop, tmp_path):
    file = tmp_path / "d.yaml"
    file.write_text(BASE + "  - {mountPoint: 's9://b/'}\n")
    assert doctor(cacheop, 1, "-f", file)["Dataset file"]["level"] == "FAIL"
    option = "{name: key, valueFrom: {secretKeyRef: {name: s, key: k}}}"
    file.write_text(BASE + f"  - {{mountPoint: 's3://b/', encryptOptions: [{option}]}}\n")
    checks = doctor(cacheop, 1, "-f", file)
    assert "CACHEOP_SECRET_S_K" in checks["demo: credentials"]["todo"]


def test_for_people(cacheop):
    done = cacheop("doctor")
    assert done.returncode == 0, done.stdout
    assert "OK    kernel: " in done.stdout or "WARN  kernel: " in done.stdout
    assert "This machine" in done.stderr


GIB = 1 << 30


def machine(**different):
    usual = {"root": True, "fuse": True, "kernel": (6, 18), "file_system": "ext4"}
    return mount_modes.Machine(**usual | {"available_bytes": 24 * GIB} | different)


@pytest.mark.parametrize(
    ("different", "total_bytes", "complete", "mode", "says"),
    [
        ({}, 90 * GIB, True, "Native", "every file"),
        ({}, 12 * GIB, False, "ZeroOpen", "12.0 GiB of 24.0 GiB"),
        ({}, 12 * GIB + 1, False, "Passthrough", "more than half"),
        ({"file_system": "tmpfs"}, GIB, False, "Passthrough", "tmpfs"),
        ({"kernel": (6, 8)}, 90 * GIB, False, "Fuse", "needs Linux 6.9, this is 6.8"),
        ({"file_system": "overlay"}, 90 * GIB, False, "Fuse", "overlayfs"),
    ],
)
def test_what_auto_takes(different, total_bytes, complete, mode, says):
    found, why = mount_modes.automatic(machine(**different), total_bytes, 99_999, complete=complete)
    assert found == mode
    assert says in why


def test_the_modes_that_can_be_had():
    assert "Native, ZeroOpen, Passthrough, Fuse. Auto" in probes.modes(machine()).found
    old = probes.modes(machine(kernel=(5, 15))).found
    assert "Native, ZeroOpen, Fuse. not Passthrough: needs Linux 6.9, this is 5.15" in old
    assert old.endswith("else Fuse")
    assert probes.modes(machine(fuse=False)).found.startswith("Native. not ZeroOpen: no /dev/fuse")
    assert probes.modes(machine(root=False)).level == "WARN"


def test_running_mounts_tell_their_mode_or_what_it_would_be():
    status = {
        "version": "ab",
        "bytes_total": GIB,
        "file_count": 999,
        "cached_percentage": 50.0,
        "mounts": [],
    }
    (found,) = mount_findings("demo", status, machine())
    assert "none; Auto would take ZeroOpen: 1.0 GiB of 24.0 GiB" in found.found
    (found,) = mount_findings("demo", status | {"cached_percentage": 100.0}, machine())
    assert "Native" in found.found
    assert mount_findings("demo", status, machine(root=False)) == []
    mounts = [{"target": "/a", "mode": "Fuse", "why": "asked for"}, {"target": "/b", "mode": "X"}]
    found = mount_findings("demo", status | {"mounts": mounts}, machine())
    assert [f.found for f in found] == ["/a, mode Fuse: asked for", "/b, mode X"]
