"""`cacheop://dataset[.namespace][@version]/path`, taken apart. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cacheop.api.errors import UserError

PROTOCOL = "cacheop"
DEFAULT_NAMESPACE = "default"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HEAD = re.compile(rf"({_LABEL})(?:\.({_LABEL}))?(?:@([0-9a-f]{{1,64}}))?")


@dataclass(frozen=True, slots=True)
class Target:
    """What the first part of a URL names. `version` is empty for the current one."""

    namespace: str
    dataset: str
    version: str

    def __str__(self) -> str:
        pinned = f"@{self.version}" if self.version else ""
        return f"{self.namespace}/{self.dataset}{pinned}"


def strip(url: str) -> str:
    """`url` without protocol and without slashes at its ends."""
    for prefix in (f"{PROTOCOL}://", f"{PROTOCOL}::"):
        url = url.removeprefix(prefix)
    return url.strip("/")


def split(path: str) -> tuple[str, str]:
    """(head, path within the Dataset) of a stripped URL; the head is for `parse_head`."""
    head, _, rest = path.partition("/")
    return head, rest.strip("/")


def parse_head(head: str, namespace: str = DEFAULT_NAMESPACE) -> Target:
    """What `dataset[.namespace][@version]` names. Raises UserError if it is not of that form."""
    match = _HEAD.fullmatch(head)
    if match is None:
        raise UserError(
            f"'{head}' is not dataset[.namespace][@version]",
            hint="Write cacheop://DATASET/path, names in lower case as in the Dataset's metadata",
        )
    return Target(match[2] or namespace, match[1], match[3] or "")
