"""A `mountPoint` taken apart: which store, and which keys in it belong to the mount. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cacheop.api.errors import UserError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a mount's objects are.

    A mount point is a directory: `s3://b/pre` has `s3://b/pre/x` but not `s3://b/prefix/x`. One
    that names exactly one object has that object, under its own last name.
    """

    mount_point: str
    scheme: str
    store: str
    """Bucket, container, or for http scheme://host."""
    prefix: str
    """Path of the mount point in the store, without slashes at the ends."""
    may_be_object: bool
    """Whether the mount point may be one object: it has a path that does not end in a slash."""
    account: str = ""
    """Azure: the account, where the address names it."""

    @property
    def directory(self) -> str:
        """What every key in the store starts with; empty or ends in a slash."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def object_name(self) -> str:
        """The key that the mount point has if it is one object; empty if it cannot be one."""
        return self.prefix.rsplit("/", 1)[-1] if self.may_be_object else ""

    def paths(self, key: str) -> tuple[str, ...]:
        """Where in the store `key` may be, the likeliest first.

        Two places only for the key that a single-object mount would have too; which of them is
        meant, the object's etag decides.
        """
        below = self.directory + key
        return (below, self.prefix) if self.may_be_object and key == self.object_name else (below,)


def parse_address(mount_point: str) -> Address:
    """`mount_point` of an object store or web server. UserError if it names none."""
    scheme, separator, _ = mount_point.partition("://")
    if not separator:
        raise UserError(
            f"mountPoint {mount_point!r} has no scheme",
            hint="Write it as a URL, such as s3://bucket/path/ or file:///data/set",
        )
    scheme = scheme.lower()
    if scheme in {"http", "https"}:
        parts = urlsplit(mount_point)
        if not parts.hostname:
            raise UserError(f"mountPoint {mount_point!r} names no host")
        store, path, account = f"{parts.scheme}://{parts.netloc}", unquote(parts.path), ""
    else:
        # Not urlsplit: in object keys `?` and `#` are characters like others.
        rest = mount_point[len(scheme) + 3 :]
        store, _, path = rest.partition("/")
        store, account = _azure_account(store)
    if not store:
        raise UserError(
            f"mountPoint {mount_point!r} names no bucket", hint=f"Write {scheme}://BUCKET/PATH/"
        )
    prefix = path.strip("/")
    if any(part in {"", ".", ".."} for part in prefix.split("/")) and prefix:
        raise UserError(
            f"mountPoint {mount_point!r} has an empty part, '.' or '..' in its path",
            hint="Name the directory by its plain path",
        )
    may_be_object = bool(prefix) and not path.endswith("/")
    return Address(mount_point, scheme, store, prefix, may_be_object, account)


def _azure_account(store: str) -> tuple[str, str]:
    """(container, account) of `container@account.dfs.core.windows.net`; else (store, "")."""
    container, at, host = store.partition("@")
    return (container, host.split(".", 1)[0]) if at else (store, "")
