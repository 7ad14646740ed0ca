from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import ControlPlane, missing
from tests.cluster.operator.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane of its own; the binaries are those of the test cluster."""
    if missing():
        pytest.skip(f"not built here: {', '.join(missing())}")
    with ControlPlane() as plane:
        found = Lab(plane)
        found.prepare()
        yield found
