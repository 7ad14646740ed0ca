"""What `up` refuses before it starts anything: exit code 2, one line, says what to do."""

from __future__ import annotations

import os
import socket

import pytest

root = pytest.mark.skipif(os.geteuid() != 0, reason="what root is told of mounts")

DATASET = """\
apiVersion: cacheop.io/v1alpha1
kind: Dataset
metadata: {name: demo}
spec:
  mounts: [{mountPoint: "s3://demo/"}]
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: s3}
stringData: {key: k}
"""
WITH_SECRET = """\
apiVersion: cacheop.io/v1alpha1
kind: Dataset
metadata: {name: demo}
spec:
  mounts:
  - mountPoint: s3://demo/
    encryptOptions: [{name: key, valueFrom: {secretKeyRef: {name: s3, key: key}}}]
"""


@pytest.fixture
def dataset(tmp_path):
    def write(text=DATASET, name="dataset.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def tier(text):
    return DATASET + f"  cache: {{tiers: [{text}]}}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DATASET.replace("mountPoint", "mountpoint"), 'did you mean "mountPoint"'),
        (tier("{quotta: 5Gi}"), 'did you mean "quota"'),
        (tier("{quota: 5Gx}"), "quota"),
        (DATASET.replace("s3://", "s4://"), "s3"),
        (DATASET.replace("demo}", "De.mo}"), "DNS label"),
        (SECRET, "no Dataset in"),
        (DATASET + "---\n" + DATASET, "twice"),
        ("a: [", "dataset.yaml"),
        (tier("{quota: 900Ti}"), "larger than the disk"),
        (tier("{medium: Memory, quota: 1Gi}"), "medium Memory is not supported"),
        (WITH_SECRET, "CACHEOP_SECRET_S3_KEY"),
    ],
)
def test_files(cacheop, dataset, text, says):
    assert says in "".join(cacheop("up", "-f", dataset(text)).stderr)
    cacheop.fails(2, "up", "-f", dataset(text))
    assert not list(cacheop.run_dir.glob("*.json"))


def test_two_mounts_that_overlap(cacheop, dataset):
    text = DATASET.replace("]", ', {mountPoint: "s3://other/", path: /a}]')
    done = cacheop("up", "-f", dataset(text))
    assert done.returncode == 2
    assert "within" in done.stderr or "overlap" in done.stderr


def test_a_file_that_is_not_there(cacheop):
    assert "No such file" in cacheop.fails(2, "up", "-f", "nothere.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--http", "nonsense"), "HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "HOST:PORT"),
        (("--timeout", "soon"), "duration"),
        (("--nodes", "0"), "nodes"),
        (("--nodez", "1"), "--nodez"),
        pytest.param(("--mount", "/proc"), "already a mount", marks=root),
        pytest.param(("--mount", "/usr"), "not empty", marks=root),
        (("--cache", "/dev/null"), "--cache"),
        (("--cache", "/proc/x"), "cannot be written"),
    ],
)
def test_options(cacheop, dataset, arguments, says):
    assert says in cacheop.fails(2, "up", "-f", dataset(), *arguments)
    assert not list(cacheop.run_dir.glob("*.json"))


@root
def test_a_mount_in_the_cache_or_around_it(cacheop, dataset):
    for mount in (cacheop.tmp_path, cacheop.cache / "default" / "demo" / "local" / "mnt"):
        assert "inside each other" in cacheop.fails(2, "up", "-f", dataset(), "--mount", mount)


def test_a_port_that_is_taken(cacheop, dataset):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = cacheop.fails(2, "up", "-f", dataset(), "--http", f"127.0.0.1:{port}")
    assert "Address already in use" in line


def test_a_mount_mode_needs_a_mount_and_must_be_one(cacheop, dataset):
    assert "without --mount" in cacheop.fails(2, "up", "-f", dataset(), "--mount-mode", "Fuse")
    assert "--mount-mode" in cacheop.fails(2, "up", "-f", dataset(), "--mount-mode", "Fast")


def test_several_datasets_cannot_share_a_mount(cacheop, dataset):
    files = ("-f", dataset(), "-f", dataset(DATASET.replace("demo}", "two}"), "two.yaml"))
    assert "one Dataset" in cacheop.fails(2, "up", *files, "--mount", "/mnt/x")


def test_a_cache_directory_that_another_worker_has(cacheop, dataset):
    record = cacheop.fake()
    (cacheop.run_dir / "default.demo.json").unlink()
    cache = record.nodes[0].root.parents[2]
    assert "in use by another worker" in cacheop.fails(2, "up", "-f", dataset(), "--cache", cache)


def test_unknown_verbs_and_missing_options(cacheop):
    assert "Did you mean 'status'" in cacheop.fails(2, "stats")
    assert "--file" in cacheop.fails(2, "up")
    assert "is not one of" in cacheop.fails(2, "status", "-o", "xml")


def test_unreadable_run_directory(cacheop):
    (cacheop.run_dir / "default.demo.json").write_text("[]")
    assert "default.demo.json" in cacheop.fails(2, "status")
