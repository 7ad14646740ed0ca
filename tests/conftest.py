"""Fixtures for all tests. Import-light: a server starts for the first test that asks for it."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.demo.link import SlowLink
from examples.demo.server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server on a free port, for the whole session; ask `bucket` for a place in it."""
    # Not tmp_path_factory: its basetemp keeps the data of three sessions.
    directory = Path(tempfile.mkdtemp(prefix="cacheop-s3-"))
    try:
        with S3Server(directory) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


_numbers = itertools.count()


@pytest.fixture
def bucket(s3: S3Server) -> Callable[[], str]:
    """Makes an empty bucket that nobody else uses and gives its name."""

    def make() -> str:
        name = f"bucket-{next(_numbers)}"
        s3.http.make_bucket(name)
        return name

    return make


@pytest.fixture
def slow_link(s3: S3Server) -> Iterator[SlowLink]:
    """The S3 server 30 ms and 1 Gbit/s away; `slow_link.endpoint`, `slow_link.traffic()`."""
    with SlowLink(s3.port) as link:
        yield link
