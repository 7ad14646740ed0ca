"""A `Listing` as an origin gives it -> columns with settled types, and what names their content.

Origins give Arrow arrays of whatever library they use, or plain sequences. From here on every
column is known to be whole: equal lengths, no nulls, keys in UTF-8, sizes not negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cache_worker.keys import BINARY, NO_SIZE, NOT_UTF8, concatenate, heap
from cacheop.api.errors import OriginError

if TYPE_CHECKING:
    from cache_worker.keys import Ints, Mask, Skipped
    from cache_worker.origins import Listing

CONTENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Columns:
    """A listing with its types settled; `seen` counts the keys that were refused as well."""

    seen: int
    keys: pa.LargeBinaryArray
    sizes: Ints
    mtimes: Ints
    etags: pa.LargeBinaryArray
    version_ids: pa.LargeBinaryArray

    def take(self, rows: Ints) -> Columns:
        """Only those objects."""
        index = pa.array(rows)
        return Columns(
            self.seen,
            self.keys.take(index),
            self.sizes[rows],
            self.mtimes[rows],
            self.etags.take(index),
            self.version_ids.take(index),
        )


def columns_of(listing: Listing, uri: str, skipped: Skipped) -> Columns:
    """Settle the types of `listing`; keys not in UTF-8 or without a size go to `skipped`.

    Raises OriginError when a column does not hold what it should.
    """
    try:
        keys, good = _utf8(listing.keys, skipped)
        sizes = _array(listing.sizes, pa.int64()).fill_null(-1).to_numpy()
        mtimes = _array(listing.mtimes_ns, pa.int64()).fill_null(0).to_numpy()
        etags = _array(listing.etags, BINARY).fill_null(b"")
        version_ids = _array(listing.version_ids, BINARY).fill_null(b"")
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, OverflowError) as error:
        raise OriginError(f"the listing of {uri} makes no sense: {error}") from error
    columns = Columns(len(keys), keys, sizes, mtimes, etags, version_ids)
    if {len(keys), len(sizes), len(mtimes), len(etags), len(version_ids)} != {len(keys)}:
        raise OriginError(f"the listing of {uri} has columns of unequal lengths")
    if not good.all():
        columns = columns.take(np.flatnonzero(good))
    sizeless = columns.sizes < 0
    skipped.note_where(NO_SIZE, sizeless, columns.keys)
    return columns.take(np.flatnonzero(~sizeless)) if sizeless.any() else columns


def _array(values: object, kind: pa.DataType) -> pa.Array:
    """`values` (an Arrow array of any library, or a sequence) as one Arrow array of `kind`."""
    if hasattr(values, "__arrow_c_array__"):
        array = pa.array(values)
    elif hasattr(values, "__arrow_c_stream__"):
        array = pa.chunked_array(values).combine_chunks()
    elif isinstance(values, np.ndarray):
        array = pa.array(values)
    else:
        text = pa.types.is_large_binary(kind)
        array = pa.array(values, pa.large_string() if text else kind)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ns"))
    return array if array.type == kind else array.cast(kind)


def _utf8(values: object, skipped: Skipped) -> tuple[pa.LargeBinaryArray, Mask]:
    """The keys as bytes, and which of them are UTF-8; those that are not are noted and empty."""
    try:
        keys = _array(values, BINARY)
        keys.cast(pa.large_string())  # checks the encoding of keys that came as bytes
        if keys.null_count == 0:
            return keys, np.ones(len(keys), np.bool_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        pass  # one of them is odd: look at each
    encoded = [_encoded(value) for value in _listed(values)]
    good = np.array([_is_utf8(key) for key in encoded], np.bool_)
    bad = [key for key, is_good in zip(encoded, good, strict=True) if not is_good]
    skipped.note(NOT_UTF8, len(bad), bad)
    return pa.array([k if g else b"" for k, g in zip(encoded, good, strict=True)], BINARY), good


def _listed(values: object) -> list[str | bytes | None]:
    if hasattr(values, "__arrow_c_array__"):
        return list(pa.array(values).cast(BINARY).to_pylist())
    return list(values)  # type: ignore[call-overload, no-any-return]  # a sequence, as Listing says


def _encoded(key: str | bytes | None) -> bytes:
    if key is None:
        raise ValueError("an object without a key")
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def content_of(uri: str, columns: Columns) -> bytes:
    """The 16 bytes of every file. Without a tag the modification time has to stand for it."""
    tagless = pc.and_(
        pc.equal(pc.binary_length(columns.etags), 0),
        pc.equal(pc.binary_length(columns.version_ids), 0),
    )
    instead: pa.Array | bytes = b""
    if pc.any(tagless).as_py():
        instead = pc.if_else(tagless, _digits(columns.mtimes), pa.scalar(b"", BINARY))
    # NUL is in no key, so no two objects give the same bytes. xxh3-128 is what the interpreter can
    # call a million times a second; it names content and proves nothing against an enemy (who
    # could as well write other bytes into the bucket).
    mount = uri.rstrip("/").encode()
    fields = (mount, columns.keys, columns.etags, columns.version_ids, _digits(columns.sizes))
    offsets, heaped = heap(concatenate((*fields, instead), b"\0"))
    data, ends = heaped.tobytes(), offsets.tolist()
    # Cut by hand: Arrow's own way to Python objects takes longer than the hashing.
    rows = map(data.__getitem__, map(slice, ends, ends[1:]))
    return b"".join(map(xxhash.xxh3_128_digest, rows))


def _digits(numbers: Ints) -> pa.LargeBinaryArray:
    return pa.array(numbers).cast(pa.large_string()).cast(BINARY)
