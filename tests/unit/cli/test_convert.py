"""`cacheop convert` as a command: streams, files, exit codes, and YAML that our reader takes."""

from __future__ import annotations

import json

from cacheop.cli import files
from tests.fakes.fluid import ALLUXIO_S3, JUICEFS, REFERENCE


def test_what_it_prints_can_be_applied(cacheop, tmp_path):
    source = tmp_path / "fluid.yaml"
    source.write_text(ALLUXIO_S3)
    done = cacheop("convert", source)
    assert done.returncode == 0, done.stderr
    assert "dropped: AlluxioRuntime vision/imagenet: spec.jvmOptions" in done.stderr
    assert "# From Fluid's Dataset vision/imagenet, AlluxioRuntime vision/imagenet." in done.stdout
    ours = tmp_path / "ours.yaml"
    ours.write_text(done.stdout)
    read = files.load([ours])
    assert [d.name for d in read.datasets] == ["imagenet"]
    assert [d.name for d in read.dataloads] == ["warm"]
    assert read.datasets[0].spec.replicas == 4


def test_a_todo_is_exit_code_1_and_comes_first(cacheop, tmp_path):
    source = tmp_path / "fluid.yaml"
    source.write_text(JUICEFS)
    done = cacheop("convert", source)
    assert done.returncode == 1
    assert done.stderr.startswith("TODO: Dataset jfsdemo: spec.mounts[0].mountPoint")
    assert "# TODO: " in done.stdout


def test_it_writes_a_file_and_speaks_json(cacheop, tmp_path):
    source, target = tmp_path / "fluid.yaml", tmp_path / "ours.yaml"
    source.write_text(REFERENCE)
    done = cacheop("convert", source, "--to", target, "-o", "json")
    assert done.returncode == 1
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["documents"][0]["spec"]["shareWith"] == {"namespaces": ["ref"]}
    assert {note["level"] for note in said["notes"]} == {"todo", "changed"}
    assert [d.name for d in files.load([target]).datasets] == ["phy"]
    assert target.read_text().startswith("# Not converted:\n# TODO: Dataset ref/refdemo: ")


def test_bad_input_is_exit_code_2(cacheop, tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert "data.fluid.io" in cacheop.fails(2, "convert", empty)
    assert "cannot read" in cacheop.fails(2, "convert", tmp_path / "none.yaml")
    empty.write_text("a: [")
    assert "not YAML" in cacheop.fails(2, "convert", empty)
    empty.write_text("apiVersion: data.fluid.io/v1alpha1\nkind: DataBackup\nmetadata: {name: b}\n")
    assert cacheop("convert", empty, "--to", tmp_path).returncode == 2
