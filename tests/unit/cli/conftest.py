"""`cacheop` in a run directory of the test's own."""

from __future__ import annotations

import pytest

from tests.fakes.command_line import CommandLine


@pytest.fixture
def cacheop(tmp_path):
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.close()
