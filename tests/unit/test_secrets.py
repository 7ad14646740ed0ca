from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import CredentialError, UserError
from cacheop.secrets import Secret, read_secret, resolve, variable, write_secrets

if TYPE_CHECKING:
    from pathlib import Path

    from cacheop.api.dataset import Dataset


def dataset(*wanted: tuple[str, str], namespace: str = "default") -> Dataset:
    options = [
        {"name": f"o{i}", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        for i, (name, key) in enumerate(wanted)
    ]
    return parse_dataset(
        {
            "apiVersion": "cacheop.io/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": "demo", "namespace": namespace},
            "spec": {"mounts": [{"mountPoint": "s3://demo/", "encryptOptions": options}]},
        }
    )


def secret(name: str = "s3", namespace: str = "default", **values: str) -> Secret:
    document: dict[str, Any] = {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": values,
    }
    found, problems = read_secret(document)
    assert not problems
    assert found is not None
    return found


def test_data_is_base64_and_string_data_wins() -> None:
    raw = base64.b64encode(bytes(range(256))).decode()
    document = {
        "metadata": {"name": "s3"},
        "data": {"a": raw, "b": "eA=="},
        "stringData": {"b": "y"},
    }
    found, problems = read_secret(document)
    assert not problems
    assert found is not None
    assert (found.namespace, found.name) == ("default", "s3")
    assert found.values == {"a": bytes(range(256)), "b": b"y"}


def test_values_are_not_shown() -> None:
    assert "hunter2" not in repr(secret(key="hunter2"))


def test_documents_come_before_the_environment() -> None:
    wanted = dataset(("s3", "key"), ("my-s3.x", "secret_key"))
    environ = {"CACHEOP_SECRET_S3_KEY": "env", "CACHEOP_SECRET_MY_S3_X_SECRET_KEY": "env\udcff"}
    assert resolve(wanted, [secret(key="file")], environ) == {
        ("s3", "key"): b"file",
        ("my-s3.x", "secret_key"): b"env\xff",
    }
    assert variable("my-s3.x", "secret_key") in environ


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], 'no Secret "s3" with key "key"'),
        ([secret("s4", key="x")], 'no Secret "s3" with key "key", did you mean "s4"?'),
        ([secret(kye="x")], 'Secret "s3" has no key "key", did you mean "kye"?'),
        ([secret(namespace="vision", key="x")], 'Secret "s3" is in namespace vision'),
    ],
)
def test_a_missing_value_says_what_to_do(given: list[Secret], said: str) -> None:
    with pytest.raises(CredentialError) as caught:
        resolve(dataset(("s3", "key")), given, {"CACHEOP_SECRET_S3_KEY": ""})
    assert said in caught.value.message
    assert "-f secret.yaml" in caught.value.hint
    assert "CACHEOP_SECRET_S3_KEY" in caught.value.hint
    assert caught.value.exit_code == 2


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "secrets"
    old = os.umask(0)
    try:
        write_secrets(dataset(("s3", "a"), ("s3", ".b")), [secret(a="1", **{".b": "2"})], directory)
        write_secrets(dataset(("s3", "a")), [secret(a="new")], directory, environ={})
    finally:
        os.umask(old)
    assert (directory / "s3" / "a").read_bytes() == b"new"
    assert (directory / "s3" / ".b").read_bytes() == b"2"
    assert sorted(path.name for path in (directory / "s3").iterdir()) == [".b", "a"]
    for path, mode in ((directory, 0o700), (directory / "s3", 0o700), (directory / "s3/a", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nothing_is_written_when_one_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CredentialError):
        write_secrets(dataset(("s3", "a"), ("s3", "b")), [secret(a="1")], tmp_path / "x", {})
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the secrets of Dataset demo"):
        write_secrets(dataset(("s3", "a")), [secret(a="1")], tmp_path / "file" / "secrets", {})


def test_a_link_in_the_way_is_replaced_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    (directory / "s3").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("untouched")
    (directory / "s3" / "a").symlink_to(tmp_path / "elsewhere")
    write_secrets(dataset(("s3", "a")), [secret(a="1")], directory, {})
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert (directory / "s3" / "a").read_text() == "1"


def test_no_secret_needed(tmp_path: Path) -> None:
    write_secrets(dataset(), [], tmp_path / "secrets", {})
    assert list((tmp_path / "secrets").iterdir()) == []
