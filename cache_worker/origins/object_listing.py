"""Lists object stores and web servers. Runs in the index child, which may import much.

obstore is by far the fastest lister, with two faults that are mended here: one key that it cannot
address (`a//b`, `../x`, a control character) ends its whole listing, and it shows the marker object
`dir/` of an empty folder as a file `dir`. It lists into Arrow columns, which go through as they
are: making a million Python objects would take longer than listing a million keys.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError

from cache_worker.origins import Listing
from cache_worker.origins.faults import Kind, classify, raised
from cache_worker.origins.store_opener import PATIENT, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from arro3.core import RecordBatch

    from cache_worker.origins.address import Address
    from cache_worker.origins.credentials import Profile
    from cache_worker.origins.options import StoreOptions

T = TypeVar("T")

BATCH_KEYS = 10_000
BATCHES_AHEAD = 8  # about 10 MB
KEY_MAX_BYTES = 1 << 20  # a thousand times what any store allows
HEADS_AT_ONCE = 16


def list_objects(address: Address, options: StoreOptions, profile: Profile) -> Iterator[Listing]:
    """Every object of the mount, in batches. Raises errors of the one tree."""
    from cache_worker.origins.exact_listing import list_exactly

    if options.version_aware and address.scheme in {"s3", "s3a"}:
        yield from list_exactly(address, options, profile, after="")
        return
    store = open_store(address, options, profile, PATIENT)
    last = ""
    try:
        if address.scheme in {"http", "https"}:
            yield from _list_web(store, address)
            return
        batches = obstore.list(
            store, address.prefix or None, chunk_size=BATCH_KEYS, return_arrow=True
        )
        for batch in _ahead(batches):
            if batch.num_rows:
                last = batch["path"][-1].as_py()
                yield _columns(store, batch, len(address.directory.encode()))
        if not last and address.may_be_object:
            yield _single(store, address)
    except (BaseError, ValueError, OSError) as error:
        fault = classify(type(error).__name__, str(error))
        if fault.kind is Kind.ODD_KEY and address.scheme in {"s3", "s3a"}:
            yield from list_exactly(address, options, profile, after=last)
            return
        if fault.kind is Kind.GONE and address.may_be_object and not last:
            return  # nothing there at all: an empty mount, which the consumer names
        raise raised(fault, address.mount_point, "", PATIENT["max_retries"] + 1) from error


def _ahead(batches: Iterator[T]) -> Iterator[T]:
    """`batches`, some of them already fetched while the caller works on one."""
    pool = ThreadPoolExecutor(1)  # owned here; one thread, so that the order stays
    try:
        coming = deque(pool.submit(next, batches, None) for _ in range(BATCHES_AHEAD))
        while (batch := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, batches, None))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _columns(store: Any, batch: RecordBatch, skip_bytes: int) -> Listing:
    """`batch` without the markers of folders; the keys lose their first `skip_bytes`."""
    # Here and not above: pyarrow is still being imported while the first batches come.
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pa.record_batch(batch)
    empty = pc.equal(rows["size"], 0)
    if pc.any(empty).as_py():
        markers = _markers(store, rows["path"].filter(empty).to_pylist())
        is_marker = pc.is_in(rows["path"], value_set=pa.array(markers, rows["path"].type))
        rows = rows.filter(pc.invert(is_marker))
    return Listing(
        # A stop must be given: pyarrow 26 refuses the slice without one.
        keys=pc.binary_slice(rows["path"].cast(pa.binary()), skip_bytes, KEY_MAX_BYTES).cast(
            pa.string()
        ),
        sizes=rows["size"],
        mtimes_ns=rows["last_modified"].cast(pa.timestamp("ns")).cast(pa.int64()),
        etags=rows["e_tag"].fill_null(""),
        version_ids=rows["version"].fill_null(""),
    )


def _markers(store: Any, empty: Sequence[str]) -> list[str]:
    """Those paths of empty objects that are not there under their shown name: folders' markers."""
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        exists = pool.map(lambda path: _is_there(store, path), empty)
        return [path for path, there in zip(empty, exists, strict=True) if not there]


def _is_there(store: Any, path: str) -> bool:
    try:
        obstore.head(store, path)
    except FileNotFoundError:
        return False
    return True


def _listing(entries: Sequence[Any], skip: int) -> Listing:
    return Listing(
        keys=[entry["path"][skip:] for entry in entries],
        sizes=[entry["size"] for entry in entries],
        mtimes_ns=[nanoseconds(entry["last_modified"]) for entry in entries],
        etags=[entry["e_tag"] or "" for entry in entries],
        version_ids=[entry["version"] or "" for entry in entries],
    )


def nanoseconds(moment: datetime) -> int:
    """`moment` (aware) since the epoch, exactly."""
    # A double holds microseconds exactly until the year 2255.
    return round(moment.timestamp() * 1_000_000) * 1000


def _single(store: Any, address: Address) -> Listing:
    entry = obstore.head(store, address.prefix)
    return _listing([entry], len(address.prefix) - len(address.object_name))


def _list_web(store: Any, address: Address) -> Iterator[Listing]:
    """One file by a HEAD; a directory by the links of its index pages and a HEAD of each file."""
    if address.may_be_object:
        yield _single(store, address)
        return
    import fsspec

    root = f"{address.store}/{address.directory}"
    web = fsspec.filesystem("http", use_listings_cache=False, skip_instance_cache=True)
    found = sorted(url for url in web.find(root) if url.startswith(root) and "?" not in url)
    keys = [_unquoted(url[len(address.store) + 1 :]) for url in found]
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        for start in range(0, len(keys), BATCH_KEYS):
            batch = keys[start : start + BATCH_KEYS]
            entries = list(pool.map(lambda path: obstore.head(store, path), batch))
            yield _listing(entries, len(address.directory))


def _unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)
