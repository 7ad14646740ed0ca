"""The FUSE protocol as bytes: layouts of requests and answers (kernel interface 7.31 and later).

Source: the kernel's include/uapi/linux/fuse.h. Pure: nothing here reads or writes a file.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MAJOR, MINOR = 7, 41
MINOR_LEAST = 31  # Linux 5.4

# Requests that are answered; every other one gets ENOSYS, or EROFS when it is in WRITES.
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE = 1, 2, 3, 14, 15, 17, 18
GETXATTR, LISTXATTR, INIT, OPENDIR, READDIR, RELEASEDIR = 22, 23, 26, 27, 28, 29
INTERRUPT, DESTROY, BATCH_FORGET, READDIRPLUS, LSEEK = 36, 38, 42, 44, 46
# Names of what is counted and shown; others appear as OP<number>.
OP_NAMES: Final = {
    LOOKUP: "LOOKUP", FORGET: "FORGET", GETATTR: "GETATTR", OPEN: "OPEN", READ: "READ",
    STATFS: "STATFS", RELEASE: "RELEASE", GETXATTR: "GETXATTR", LISTXATTR: "LISTXATTR",
    25: "FLUSH", INIT: "INIT", OPENDIR: "OPENDIR", READDIR: "READDIR", RELEASEDIR: "RELEASEDIR",
    34: "ACCESS", INTERRUPT: "INTERRUPT", DESTROY: "DESTROY", 39: "IOCTL",
    BATCH_FORGET: "BATCH_FORGET", READDIRPLUS: "READDIRPLUS", LSEEK: "LSEEK", 52: "STATX",
}  # fmt: skip
NAMES: Final = {
    1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 5: "READLINK", 14: "OPEN", 15: "READ", 17: "STATFS",
    18: "RELEASE", 22: "GETXATTR", 23: "LISTXATTR", 25: "FLUSH", 26: "INIT", 27: "OPENDIR",
    28: "READDIR", 29: "RELEASEDIR", 34: "ACCESS", 36: "INTERRUPT", 38: "DESTROY", 39: "IOCTL",
    40: "POLL", 42: "BATCH_FORGET", 44: "READDIRPLUS", 46: "LSEEK", 52: "STATX",
}  # fmt: skip
"""For people: opcodes without a name are shown by number."""
# setattr, symlink, mknod, mkdir, unlink, rmdir, rename, link, write, setxattr, removexattr, create,
# fallocate, rename2, copy_file_range, tmpfile
WRITES: Final = frozenset({4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51})
NO_ANSWER: Final = frozenset({FORGET, BATCH_FORGET})

ASYNC_READ: Final = 1 << 0
DO_READDIRPLUS: Final = 1 << 13
READDIRPLUS_AUTO: Final = 1 << 14
NO_OPEN_SUPPORT: Final = 1 << 17  # ENOSYS to OPEN means: open without asking, keep pages
PARALLEL_DIROPS: Final = 1 << 18
MAX_PAGES: Final = 1 << 22
NO_OPENDIR_SUPPORT: Final = 1 << 24
INIT_EXT: Final = 1 << 30
PASSTHROUGH: Final = 1 << 37  # since Linux 6.9
HAS_RESEND: Final = 1 << 39
WANTED: Final = (
    ASYNC_READ | DO_READDIRPLUS | READDIRPLUS_AUTO | PARALLEL_DIROPS | MAX_PAGES | INIT_EXT
    | HAS_RESEND
)  # fmt: skip

FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_NOFLUSH: Final = 1 << 5  # since Linux 5.16: close asks nobody
FOPEN_PASSTHROUGH: Final = 1 << 7
NOTIFY_INVAL_INODE, NOTIFY_RESEND = 2, 7

# No writes: a name, or a list of forgotten inodes. The kernel refuses to read into less than this.
REQUEST_MAX_BYTES: Final = 8192
READ_MAX_BYTES: Final = 1 << 20
PAGE_BYTES: Final = 4096
READAHEAD_BYTES: Final = 8 << 20
BACKGROUND: Final = 64  # readahead requests in the air at once
FOREVER_SECONDS: Final = 86400  # how long the kernel may keep what can never change

IN_HEADER: Final = struct.Struct("<IIQQIIIHH")  # length, op, unique, node, uid, gid, pid, ext, pad
IN_HEAD: Final = struct.Struct("<IIQQ")  # what is looked at of it
UNIQUE_OFFSET: Final = 8
RESENT: Final = 1 << 63  # in the unique id of a request that was sent again, and in no other
OUT_HEADER: Final = struct.Struct("<IiQ")  # length, -errno, unique
READ_IN: Final = struct.Struct("<QQI")  # fh, offset, size (more follows)
SIZE_IN: Final = struct.Struct("<I")  # getxattr, listxattr: size of the asker's buffer
UNIQUE_IN: Final = struct.Struct("<Q")
LSEEK_IN: Final = struct.Struct("<QQI")  # fh, offset, whence
OPEN_OUT: Final = struct.Struct("<QII")  # fh, flags, backing id
RELEASE_IN: Final = struct.Struct("<Q")  # fh (more follows)
OFFSET_OUT: Final = struct.Struct("<Q")
SIZE_OUT: Final = struct.Struct("<II")

_INIT_IN = struct.Struct("<IIII")  # major, minor, max_readahead, flags; flags2 behind it
_FLAGS2_IN = struct.Struct("<I")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_INVAL_INODE = struct.Struct("<Qqq")  # node, offset, length (-1: to the end)
_DIRENT = struct.Struct("<QQII")
_KSTATFS = struct.Struct("<QQQQQIIII24x")

S_IFDIR, S_IFREG = 0o040000, 0o100000


class Init(NamedTuple):
    """What the kernel offers, or what was agreed: interface minor, readahead and flag bits."""

    minor: int
    max_readahead_bytes: int
    flags: int


class Attributes(NamedTuple):
    """What stat shows of an inode; every file is 0444 and every directory 0555 of root."""

    node: int
    directory: bool
    size_bytes: int
    mtime_ns: int


def parse_init(body: memoryview | bytes) -> tuple[int, Init]:
    """(major, offer) of an INIT request's body."""
    major, minor, readahead_bytes, flags = _INIT_IN.unpack_from(body)
    if flags & INIT_EXT and len(body) >= _INIT_IN.size + _FLAGS2_IN.size:
        flags |= _FLAGS2_IN.unpack_from(body, _INIT_IN.size)[0] << 32
    return major, Init(minor, readahead_bytes, flags)


def agree(offer: Init, wanted: int = WANTED) -> Init:
    """What we take of the kernel's offer."""
    return Init(min(offer.minor, MINOR), READAHEAD_BYTES, offer.flags & wanted)


def init_answer(agreed: Init) -> bytes:
    """Body of the answer to INIT."""
    return _INIT_OUT.pack(
        MAJOR,
        MINOR,
        agreed.max_readahead_bytes,
        agreed.flags & 0xFFFFFFFF,
        BACKGROUND,
        BACKGROUND * 3 // 4,
        PAGE_BYTES,  # max_write: nothing is ever written
        1,  # times are in nanoseconds
        READ_MAX_BYTES // PAGE_BYTES,
        0,
        agreed.flags >> 32,
        1 if agreed.flags & PASSTHROUGH else 0,  # what may lie below: plain file systems
    )


def header(unique: int, body_bytes: int) -> bytes:
    """Header of an answer whose body has `body_bytes`."""
    return OUT_HEADER.pack(OUT_HEADER.size + body_bytes, 0, unique)


def failure(unique: int, errno_code: int) -> bytes:
    """A whole answer that says no."""
    return OUT_HEADER.pack(OUT_HEADER.size, -errno_code, unique)


def resend_notice() -> bytes:
    """Asks the kernel for the requests that were handed out and not answered (Linux 6.9)."""
    return OUT_HEADER.pack(OUT_HEADER.size, NOTIFY_RESEND, 0)


def forget_pages(node: int) -> bytes:
    """Asks the kernel to drop what it keeps of the file's content."""
    body = _INVAL_INODE.pack(node, 0, -1)
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), NOTIFY_INVAL_INODE, 0) + body


def attributes(of: Attributes) -> bytes:
    """An inode as fuse_attr. Directories say nlink 1, "not counted", so that `find` counts none."""
    seconds, nanoseconds = divmod(of.mtime_ns, 1_000_000_000)
    seconds &= 0xFFFFFFFFFFFFFFFF
    mode = S_IFDIR | 0o555 if of.directory else S_IFREG | 0o444
    return _ATTR.pack(
        of.node, of.size_bytes, (of.size_bytes + 511) >> 9,
        seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
        mode, 1, 0, 0, 0, READ_MAX_BYTES, 0,
    )  # fmt: skip


def attributes_answer(of: Attributes) -> bytes:
    """Body of the answer to GETATTR."""
    return _ATTR_OUT.pack(FOREVER_SECONDS, 0, 0) + attributes(of)


def entry(of: Attributes) -> bytes:
    """A name as fuse_entry_out: body of the answer to LOOKUP."""
    return _ENTRY.pack(of.node, 0, FOREVER_SECONDS, FOREVER_SECONDS, 0, 0) + attributes(of)


# A name that is not there, and never will be in this version: the kernel remembers it too.
NO_ENTRY: Final = _ENTRY.pack(0, 0, FOREVER_SECONDS, 0, 0, 0) + bytes(_ATTR.size)


def directory_entry(of: Attributes, name: bytes, next_offset: int, *, plus: bool) -> bytes:
    """One entry of READDIR, or with `plus` of READDIRPLUS; `next_offset` is where to go on.

    "." and ".." come without an inode: the kernel knows them already.
    """
    kind = (S_IFDIR if of.directory else S_IFREG) >> 12
    dirent = _DIRENT.pack(of.node, next_offset, len(name), kind) + name + bytes(-len(name) % 8)
    if not plus:
        return dirent
    if name in {b".", b".."}:
        return bytes(_ENTRY.size + _ATTR.size) + dirent
    return entry(of) + dirent


def statfs(size_bytes: int, files: int) -> bytes:
    """Body of the answer to STATFS: a full file system of this size."""
    blocks = -(-size_bytes // PAGE_BYTES)
    return _KSTATFS.pack(blocks, 0, 0, files, 0, PAGE_BYTES, 255, PAGE_BYTES, 0)
