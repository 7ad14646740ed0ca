"""What the Datasets of these tests hold: known files in S3, behind a proxy that counts."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.demo.server import S3Server
    from tests.cluster.kubectl import Object
    from tests.fakes.fault_proxy import FaultProxy

SECRET = "s3"
# Small ones, one of several chunks, an empty one, and names that are not easy.
SIZES = {f"train/{number // 10}/{number:03d}.bin": 90_000 + 700 * number for number in range(60)}
SIZES |= {"big.bin": (20 << 20) + 5, "empty.bin": 0, "käse & brot/ü +%.bin": 1234}


def content(path: str, size: int, salt: str = "") -> bytes:
    """The file's bytes; the pods' scripts compute the same."""
    return random.Random(salt + path).randbytes(size)


def digest(body: bytes) -> str:
    """As the pods print it."""
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Origin:
    """A bucket with files, and the way to it."""

    s3: S3Server
    proxy: FaultProxy
    bucket: str
    sizes: dict[str, int]
    salt: str = ""

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(self.sizes.values())

    def some(self) -> Origin:
        """A few of its files only."""
        return replace(self, sizes=dict(list(self.sizes.items())[:8]))

    def digests(self) -> dict[str, str]:
        """What a pod that reads all must print."""
        return {p: digest(content(p, size, self.salt)) for p, size in self.sizes.items()}

    def put(self, path: str, body: bytes) -> None:
        """Change it."""
        self.s3.http.put(self.bucket, path, body)

    def mount(self) -> Object:
        """For spec.mounts; the credentials are in a Secret."""
        options = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": name}}}
            for name in ("key", "secret")
        ]
        return {
            "mountPoint": f"s3://{self.bucket}/",
            "options": {"endpoint_url": self.proxy.endpoint},
            "encryptOptions": options,
        }

    def secret(self, *, right: bool = True) -> Object:
        """The Secret that `mount` names."""
        found = {"key": self.s3.access_key, "secret": self.s3.secret_key if right else "wrong"}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in found.items()},
        }


def fill(s3: S3Server, bucket: str, sizes: dict[str, int], salt: str = "") -> None:
    """Put the files into a bucket."""
    s3.http.make_bucket(bucket)
    for path, size in sizes.items():
        s3.http.put(bucket, path, content(path, size, salt))
