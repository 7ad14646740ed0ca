from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.operator.control_plane import ControlPlane, missing, wait_for
from tests.cluster.operator.lab import OBJECTS, Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.operator.lab import OperatorProcess


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


@pytest.fixture(scope="session")
def nodes(lab: Lab) -> list[str]:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    found = [lab.node("node-a"), lab.node("node-b"), lab.node("node-c", taints=[taint])]
    for name in found:
        lab.plugin(name)
    return found


@pytest.fixture(scope="session")
def operator(lab: Lab, nodes: list[str]) -> Iterator[OperatorProcess]:
    del nodes
    with lab.operator("session") as process:
        process.wait_active()
        yield process
        print(process.log[-6000:])


@pytest.fixture
def team(lab: Lab, operator: OperatorProcess) -> Iterator[str]:
    """A namespace of its own with the Dataset `mine`, and its objects."""
    assert operator.process.poll() is None, operator.log[-3000:]
    namespace = lab.namespace()
    lab.dataset(namespace)
    for what, path in OBJECTS.items():
        wait_for(lambda p=path: lab.api.find(p.format(namespace)), 20, f"{what} is there")
    yield namespace
    lab.api.merge(lab.path(namespace), {"spec": {"deletion": {"whenMounted": "Force"}}})
    lab.api.delete(lab.path(namespace))
    wait_for(lambda: lab.api.find(lab.path(namespace)) is None, 20, "the Dataset is gone")
