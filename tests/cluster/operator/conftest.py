from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import ControlPlane, missing
from tests.cluster.operator.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def controllers(lab: Lab) -> None:
    """For tests that need Kubernetes' own controllers."""
    if not lab.plane.has_controllers:
        pytest.skip("kube-controller-manager is not built here")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane of its own; the binaries are those of the test cluster."""
    if missing():
        pytest.skip(f"not built here: {', '.join(missing())}")
    with ControlPlane() as plane:
        found = Lab(plane)
        found.prepare()
        yield found
