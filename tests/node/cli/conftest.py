"""`cacheop` with real workers, a real S3 server and a Dataset in it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.fakes.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"train/a.bin": 10_000, "train/b.bin": 0, "val/c.bin": 9 << 20}


@dataclass(frozen=True)
class Stored:
    file: Path
    secret: Path
    bucket: str
    checksums: dict[str, str]

    @property
    def files(self) -> tuple[object, ...]:
        return ("-f", self.file, "-f", self.secret)

    def changed(self, old: str, new: str) -> Path:
        """The Dataset file with one thing changed."""
        text = self.file.read_text()
        assert old in text
        path = self.file.with_name("changed.yaml")
        path.write_text(text.replace(old, new))
        return path


@pytest.fixture
def stored(s3, bucket, tmp_path):
    name = bucket()
    checksums = {}
    for key, size in SIZES.items():
        body = os.urandom(size)
        s3.http.put(name, key, body)
        checksums[key] = hashlib.sha256(body).hexdigest()
    references = [
        {"name": option, "valueFrom": {"secretKeyRef": {"name": "s3", "key": option}}}
        for option in ("key", "secret")
    ]
    mount = {
        "mountPoint": f"s3://{name}/",
        "options": {"endpoint_url": s3.endpoint},
        "encryptOptions": references,
    }
    api = {"apiVersion": "cacheop.io/v1alpha1", "kind": "Dataset"}
    dataset = api | {"metadata": {"name": "demo"}, "spec": {"mounts": [mount]}}
    values = {"key": s3.access_key, "secret": s3.secret_key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}
    file, secret_file = tmp_path / "dataset.yaml", tmp_path / "secret.yaml"
    file.write_text(json.dumps(dataset))  # JSON is YAML
    secret_file.write_text(json.dumps(secret | {"stringData": values}))
    return Stored(file, secret_file, name, checksums)


@pytest.fixture
def cacheop(tmp_path):
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line("down", "--all", "--purge", "--yes")
    command_line.close()
