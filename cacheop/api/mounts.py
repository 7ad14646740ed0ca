"""What makes `spec.mounts` right: known URLs that do not overlap. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from cacheop.api.model import Problem, Rule
from cacheop.api.parse import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEMES: tuple[str, ...] = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https"),
    *("hf", "hdfs", "webhdfs", "pvc", "nfs", "file", "local", "memory"),
    *("ftp", "sftp", "ssh", "smb", "github", "git", "oss", "oci", "obs", "tos", "cos"),
    *("dropbox", "gdrive", "box", "dbfs", "dvc", "lakefs", "webdav", "zip", "tar"),
)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

# No rule says that an option is in options or in encryptOptions only: CEL cannot see a map whose
# values may be anything. The operator says it in the status instead.
MOUNT_RULES = (
    Rule(
        f"self.mountPoint.matches('^({'|'.join(SCHEMES)})://')",
        "mountPoint must be a URL of a known kind, such as s3://bucket/prefix/",
    ),
    # The CRD is for clusters only; `cacheop up` reads such a mount.
    Rule(
        "!self.mountPoint.matches('^(file|local|memory)://')",
        "a place on one machine is no origin for a cluster; put the files on a claim and write"
        " pvc://claim/path",
    ),
    Rule(
        "!self.mountPoint.matches('^[^/]*//[^/@]*:[^/@]*@')",
        "put the password of mountPoint into a Secret and name it in encryptOptions",
    ),
)
OVERLAP_RULE = Rule(
    "self.all(a, self.all(b, a.path == b.path"
    " || (a.path != '/' && !b.path.startsWith(a.path + '/'))))",
    "no mount may lie within another; give each a path of its own",
)


class HasPath(Protocol):
    """A mount, as far as this module cares."""

    @property
    def path(self) -> str:
        """Where it appears in the Dataset."""
        ...


def check_mount_point(url: str) -> Iterator[Problem]:
    """What is wrong with the URL of a mount."""
    match = _URL.fullmatch(url)
    if match is None:
        help_ = f', did you mean "file://{url}"?' if url.startswith("/") else ""
        yield Problem((), f'"{url}" is not a URL such as s3://bucket/prefix/{help_}')
        return
    scheme, rest = match[1], match[2]
    if scheme not in SCHEMES:
        help_ = nearest(scheme, SCHEMES) or f"; known are {', '.join(SCHEMES[:16])}, …"
        yield Problem((), f'unknown storage "{scheme}://"{help_}')
    elif not rest.strip("/") and scheme not in ("file", "local", "memory"):
        yield Problem((), f'"{url}" names no bucket or host')
    elif re.match(r"[^/@]*:[^/@]*@", rest):
        # The URL is shown in status, logs and metrics.
        yield Problem(
            (), "has a password in it; put it into a Secret and name it in encryptOptions"
        )
    elif any(ord(c) < 0x20 or ord(c) == 0x7F for c in url):
        yield Problem((), "has a control character in it")


def overlaps(mounts: Sequence[HasPath]) -> Iterator[Problem]:
    """Mounts within another. Equal paths are the parser's to find (Limits.keys)."""
    for i, inner in enumerate(mounts):
        for k, outer in enumerate(mounts):
            if inner.path != outer.path and _within(inner.path, outer.path):
                text = f'"{inner.path}" lies within "{outer.path}" of mounts[{k}]'
                yield Problem((i, "path"), f"{text}; give each a path of its own")


def _within(inner: str, outer: str) -> bool:
    return outer == "/" or inner.startswith(outer + "/")
