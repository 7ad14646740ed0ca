from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.api_server import FakeApiServer
from tests.fakes.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def api() -> Iterator[FakeApiServer]:
    with FakeApiServer() as server:
        yield server


@pytest.fixture
def kubectl_user(tmp_path: Path, api: FakeApiServer) -> Iterator[CommandLine]:
    """The command line of somebody whose kubeconfig leads to `api`, namespace vision."""
    found = CommandLine(tmp_path)
    api.kubeconfig(tmp_path / "no-kubeconfig")
    yield found
    found.close()
