from __future__ import annotations

from pathlib import Path

import pytest

from cacheop.api.errors import SpecError, UserError
from cacheop.cli.files import load

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
apiVersion: cacheop.io/v1alpha1
kind: Dataset
metadata: {name: demo}
spec:
  mounts:
  - mountPoint: s3://demo/
"""


def write(directory: Path, text: str, name: str = "dataset.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refusal(*paths: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(paths)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_the_examples_are_right() -> None:
    found = load([ROOT / "examples"])
    assert [dataset.name for dataset in found.datasets] == ["demo"]
    assert [item.spec.dataset for item in found.dataloads] == ["demo"]
    assert [secret.name for secret in found.secrets] == ["demo"]
    assert found.notes == ()
    assert found.datasets[0].spec.mounts[0].mount_point == "s3://demo/"


def test_several_documents_in_several_files(tmp_path: Path) -> None:
    second = GOOD.replace("demo", "other")
    one = write(tmp_path, f"---\n{GOOD}---\n{second}---\n# nothing\n")
    two = write(tmp_path, "kind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n", "s.yml")
    found = load([one, two])
    assert [dataset.name for dataset in found.datasets] == ["demo", "other"]
    assert found.secrets[0].values == {"a": b"b"}


def test_other_kinds_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}---\napiVersion: v1\nkind: ConfigMap\n")
    found = load([path])
    assert len(found.datasets) == 1
    assert found.notes == (f"{path}:8: ConfigMap is nothing that cacheop uses here; left out",)


def test_a_mistake_has_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "  cache:\n    tiers:\n    - medium: Disk\n      quotta: 1Gi\n")
    assert refusal(path) == (
        f'{path}:10: spec.cache.tiers[0].quotta: unknown field, did you mean "quota"?'
    )


def test_what_is_missing_has_the_line_around_it(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("- mountPoint: s3://demo/", "- path: /a"))
    assert refusal(path) == f"{path}:6: spec.mounts[0].mountPoint: is missing"


def test_all_mistakes_of_all_files_at_once(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD + "  replicas: -1\n  placement: zone\n", "1.yaml")
    two = write(tmp_path, GOOD.replace("kind: Dataset", "kind: Datset"), "2.yaml")
    lines = refusal(one, two).splitlines()
    assert lines[0] == "3 problems"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        f"{one}:7",
        f"{one}:8",
        f"{two}:1",
    ]
    assert 'did you mean "Dataset"?' in lines[3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2\nb: 3\n", ":2: not YAML: "),
        ("a: 1\na: 2\n", ':2: not YAML: "a" is there twice'),
        ("a:\n\tb: 1\n", ":2: not YAML: "),
        ("a: !!python/object:os.system x\n", ":1: not YAML: "),
        ("- 1\n", "expected a document with `kind`, found a list"),
        ("hello\n", "found the text"),
        ("spec: {}\n", "kind: is missing"),
        ("? [a, b]\n: 1\n", ":1: not YAML: "),
        ("[" * 5000, "not YAML"),
        ("a: \x00\n", "not YAML"),
        ("kind: Dataset\napiVersion: data.fluid.io/v1alpha1\n", 'expected "cacheop.io/v1alpha1"'),
        ("kind: Backup\napiVersion: cacheop.io/v1alpha1\n", 'unknown kind "Backup"'),
    ],
)
def test_what_is_no_dataset_file(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(write(tmp_path, text))


def test_a_time_stays_text(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "  refresh: {requestedAt: 2026-01-02T03:04:05Z}\n")
    assert load([path]).datasets[0].spec.refresh.requested_at == "2026-01-02T03:04:05Z"


def test_aliases_and_merges_work(tmp_path: Path) -> None:
    text = """\
apiVersion: cacheop.io/v1alpha1
kind: Dataset
metadata: {name: demo}
spec:
  mounts:
  - &first
    mountPoint: s3://demo/a/
    path: /a
    options: {anon: true}
  - <<: *first
    mountPoint: s3://demo/b/
    path: /b
"""
    mounts = load([write(tmp_path, text)]).datasets[0].spec.mounts
    assert [mount.path for mount in mounts] == ["/a", "/b"]
    assert mounts[1].options == {"anon": True}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert "no *.yaml file" in refusal(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xff\n")
    assert "not text in UTF-8" in refusal(path)
    with path.open("wb") as file:
        file.truncate(5 << 20)
    assert "larger than 4 MiB" in refusal(path)


def test_a_windows_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load([path]).datasets[0].name == "demo"


def test_a_secret_that_is_wrong_shows_no_value(tmp_path: Path) -> None:
    text = "kind: Secret\nmetadata: {name: s}\ndata: {a: hunter2!}\nstringData: {b: 1234567}\n"
    message = refusal(write(tmp_path, text))
    assert "data.a: is not base64" in message
    assert "stringData.b: expected text" in message
    assert "hunter2" not in message
    assert "1234567" not in message


def test_wrong_yaml_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        load([write(tmp_path, "a: [")])
