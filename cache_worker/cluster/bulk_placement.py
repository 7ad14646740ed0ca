"""The owners of very many chunks at once, the same as placement.py's, with numpy. Pure.

For simulations, benchmarks and short-lived children: the resident worker imports no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cache_worker.cluster.placement import rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_worker.cluster.placement import Seats

    Indexes = np.ndarray[Any, np.dtype[np.int64]]
    U64 = np.ndarray[Any, np.dtype[np.uint64]]
    F64 = np.ndarray[Any, np.dtype[np.float64]]
    I32 = np.ndarray[Any, np.dtype[np.int32]]
    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

BLOCK = 1 << 17
"""Hashes worked on at a time: 2 MiB with the scratch. Smaller blocks cost more calls, larger ones
leave the processor's cache."""
CLOSE = 1e-12
"""Where numpy's logarithm could order two scores unlike math.log, which is asked then."""

# Of XXH3's secret, as 64-bit little-endian words, the pairs that inputs of 8 and of 16 bytes use.
FLIP_8 = 0x1CAD21F72C81017C ^ 0xDB979083E96DD4DE
FLIP_16 = (0x1F67B3B7A4A44072 ^ 0x78E5C0CC4EE679CB, 0x2172FFCC7DD05A82 ^ 0x8E2443F7744608B8)
PRIME_8 = np.uint64(0x9FB21C651E98DF25)
PRIME_16 = np.uint64(0x165667919E3779F9)


def places(content: Bytes, chunk: U64) -> U64:
    """`xxh3_64_digest(content, chunk)` of each row, read as little-endian integers.

    `content` has 16 bytes in a row, and there is a chunk number for each row.
    """
    words = np.ascontiguousarray(content).view("<u8").astype(np.uint64)
    seed = chunk.astype(np.uint64)
    low = words[:, 0] ^ (np.uint64(FLIP_16[0]) + seed)
    high = words[:, 1] ^ (np.uint64(FLIP_16[1]) - seed)
    h = np.uint64(16) + low.byteswap() + high + _folded_product(low, high)
    h ^= h >> np.uint64(37)
    h *= PRIME_16
    h ^= h >> np.uint64(32)
    return h.byteswap()  # a digest is big-endian


def owners(seats: Seats, places: U64) -> I32:
    """The owner of each place, as its number in `seats.owning`, which may not be empty.

    Needs as much memory as `places`, and a few MB, beside it and the result.
    """
    found = np.empty(len(places), np.int32)
    rows = max(1, BLOCK // len(seats.owning))
    flips = [_mixed(_flips(np.array(c.seeds, np.uint64))) for c in seats.classes]
    most = max(map(len, flips))
    hashes, scratch = np.empty((rows, most), np.uint64), np.empty((rows, most), np.uint64)
    mixed = _mixed((places << np.uint64(32)) | (places >> np.uint64(32)))
    for first in range(0, len(places), rows):
        some = mixed[first : first + rows]
        best = np.empty((len(flips), len(some)), np.int64)
        tops = np.empty((len(flips), len(some)), np.uint64)
        for i, flip in enumerate(flips):
            drawn = hashes[: len(some), : len(flip)]
            _draw(some, flip, drawn, scratch[: len(some), : len(flip)])
            best[i] = drawn.argmax(axis=1)
            tops[i] = drawn[np.arange(len(some)), best[i]]
        found[first : first + rows] = _among_classes(seats, best, tops)
    return found


def _draw(mixed: U64, flip: U64, out: U64, scratch: U64) -> None:
    """The hash of each place by each member, as XXH3 has it for 8 bytes and a seed."""
    np.bitwise_xor(mixed[:, None], flip, out=out)
    np.multiply(out, PRIME_8, out=out)
    np.right_shift(out, np.uint64(35), out=scratch)
    np.add(scratch, np.uint64(8), out=scratch)
    np.bitwise_xor(out, scratch, out=out)
    np.multiply(out, PRIME_8, out=out)
    np.right_shift(out, np.uint64(28), out=scratch)
    np.bitwise_xor(out, scratch, out=out)


def _among_classes(seats: Seats, best: Indexes, tops: U64) -> I32:
    """The winner among the best of each weight; both arrays are (classes, places)."""
    starts = np.cumsum([0, *(len(c.members) for c in seats.classes)])[:-1]
    numbers: I32 = (best + starts[:, None]).astype(np.int32)
    winner = np.zeros(numbers.shape[1], np.int64)
    if len(starts) > 1:
        weights = np.array([c.weight for c in seats.classes], np.float64)
        scores = -np.log((tops.astype(np.float64) + 0.5) / 2.0**64) / weights[:, None]
        winner = scores.argmin(axis=0)
        for at in _close(scores):
            ranks = [
                rank((int(top), equals.weight, seats.owning[number]))
                for top, equals, number in zip(
                    tops[:, at], seats.classes, numbers[:, at], strict=True
                )
            ]
            winner[at] = ranks.index(min(ranks))
    result: I32 = numbers[winner, np.arange(len(winner))]
    return result


def _close(scores: F64) -> Iterator[int]:
    """Where the two best scores are too near each other to trust their order."""
    two = np.partition(scores, 1, axis=0)[:2]
    yield from np.flatnonzero(two[1] - two[0] <= CLOSE * two[1]).tolist()


def _flips(seeds: U64) -> U64:
    """What seeds do to an input of 8 bytes, whichever it is."""
    turned = seeds.astype(np.uint32).byteswap().astype(np.uint64)
    return np.uint64(FLIP_8) - (seeds ^ (turned << np.uint64(32)))


def _mixed(h: U64) -> U64:
    """XXH3's first step for 8 bytes. As _mixed(a ^ b) = _mixed(a) ^ _mixed(b), it need not be done
    for each place with each member.
    """
    return h ^ _rotated(h, 49) ^ _rotated(h, 24)


def _rotated(h: U64, bits: int) -> U64:
    return (h << np.uint64(bits)) | (h >> np.uint64(64 - bits))


def _folded_product(a: U64, b: U64) -> U64:
    """The two halves of the 128-bit product, by exclusive or."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    cross = a_high * b_low + (a_low * b_low >> half)
    middle = a_low * b_high + (cross & low)
    folded: U64 = (a_high * b_high + (cross >> half) + (middle >> half)) ^ (a * b)
    return folded
