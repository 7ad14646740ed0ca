"""The layouts, against the sizes and offsets of the kernel's own header."""

from __future__ import annotations

import struct

import pytest

from cache_worker.mounts import kernel
from cache_worker.mounts.kernel import Attributes, Init

FILE = Attributes(node=7, directory=False, size_bytes=1000, mtime_ns=1_500_000_000_000_000_003)
DIRECTORY = Attributes(node=1, directory=True, size_bytes=0, mtime_ns=-1)


def test_sizes_are_those_of_the_header_file():
    assert kernel.IN_HEADER.size == 40
    assert kernel.OUT_HEADER.size == 16
    assert len(kernel.attributes(FILE)) == 88
    assert len(kernel.attributes_answer(FILE)) == 104
    assert len(kernel.entry(FILE)) == len(kernel.NO_ENTRY) == 128
    assert len(kernel.init_answer(Init(41, 1, 0))) == 64
    assert len(kernel.statfs(1, 1)) == 80
    assert kernel.OPEN_OUT.size == 16


def test_attributes_of_files_and_directories():
    fields = struct.unpack("<QQQQQQIIIIIIIIII", kernel.attributes(FILE))
    assert fields[:3] == (7, 1000, 2)
    assert fields[3:9] == (1_500_000_000,) * 3 + (3,) * 3
    assert fields[9] == 0o100444
    before_1970 = struct.unpack("<QQQqqqIIIIIIIIII", kernel.attributes(DIRECTORY))
    assert before_1970[3] == -1
    assert before_1970[6] == 999_999_999
    assert before_1970[9] == 0o040555


@pytest.mark.parametrize("name", [b"a", b"1234567", b"12345678", b"x" * 255])
@pytest.mark.parametrize("plus", [False, True])
def test_directory_entries_are_padded_to_eight_bytes(name, plus):
    entry = kernel.directory_entry(FILE, name, 5, plus=plus)
    assert len(entry) % 8 == 0
    at = 128 if plus else 0
    node, offset, length, kind = struct.unpack_from("<QQII", entry, at)
    assert (node, offset, kind) == (7, 5, 8)
    assert entry[at + 24 : at + 24 + length] == name
    assert len(entry) - at - 24 - length < 8


def test_dot_entries_carry_no_inode_in_readdirplus():
    entry = kernel.directory_entry(DIRECTORY, b"..", 2, plus=True)
    assert entry[:128] == bytes(128)


def test_init_takes_what_is_offered_and_wanted_only():
    body = struct.pack("<IIIII", 7, 45, 131072, 0xFFFFFFFF, 0xFFFFFFFF)
    major, offer = kernel.parse_init(memoryview(body + bytes(44)))
    agreed = kernel.agree(offer)
    assert major == 7
    assert agreed.minor == kernel.MINOR
    assert agreed.flags == kernel.WANTED
    answer = struct.unpack_from("<IIIIHHIIHHI", kernel.init_answer(agreed))
    assert answer[2] == kernel.READAHEAD_BYTES
    assert answer[3] | answer[10] << 32 == kernel.WANTED
    assert answer[8] == 256


def test_init_of_an_old_kernel_has_no_second_word_of_flags():
    body = struct.pack("<IIII", 7, 31, 131072, kernel.ASYNC_READ | kernel.MAX_PAGES)
    _, offer = kernel.parse_init(memoryview(body))
    assert kernel.agree(offer) == Init(
        31, kernel.READAHEAD_BYTES, kernel.ASYNC_READ | kernel.MAX_PAGES
    )


def test_failure_and_notice():
    assert kernel.failure(9, 5) == struct.pack("<IiQ", 16, -5, 9)
    assert kernel.resend_notice() == struct.pack("<IiQ", 16, 7, 0)
