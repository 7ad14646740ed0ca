"""One active operator: a dead one is replaced. Without an API server it waits. Fewer rights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cacheop.operator import rbac
from tests.cluster.operator.control_plane import ControlPlane, missing, wait_for
from tests.cluster.operator.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]
CLAIM = "/api/v1/namespaces/{}/persistentvolumeclaims/mine"


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A control plane that may be stopped."""
    if missing():
        pytest.skip(f"not built here: {', '.join(missing())}")
    with ControlPlane() as plane:
        lab = Lab(plane)
        lab.prepare()
        yield lab


def test_a_dead_operator_is_replaced_within_15_s(own_lab: Lab) -> None:
    lab = own_lab
    with lab.operator("one") as one, lab.operator("two") as two:
        wait_for(
            lambda: any("is the active operator" in p.log for p in (one, two)), 30, "one is active"
        )
        first, second = (one, two) if "is the active operator" in one.log else (two, one)
        namespace = lab.namespace()
        lab.dataset(namespace)
        wait_for(lambda: lab.api.find(CLAIM.format(namespace)), 15, "the active one works")
        time.sleep(3)
        assert "is the active operator" not in second.log
        first.kill()
        began = time.monotonic()
        later = lab.namespace()
        lab.dataset(later)
        wait_for(lambda: lab.api.find(CLAIM.format(later)), 15, "the other one works")
        print(f"replaced after {time.monotonic() - began:.1f} s")
        assert second.stop() == 0
        # Who ends in order leaves at once.
        with lab.operator("three") as three:
            assert three.wait_active(10) < 6


def test_a_minute_without_the_api_server_changes_nothing(own_lab: Lab) -> None:
    lab = own_lab
    with lab.operator("one") as one:
        one.wait_active()
        namespace = lab.namespace()
        lab.dataset(namespace)
        wait_for(lambda: lab.api.find(CLAIM.format(namespace)), 15, "it works")
        lab.plane.stop_api_server()
        time.sleep(20)
        assert one.process.poll() is None, one.log[-2000:]
        assert "nothing is done" in one.log
        lab.plane.start_api_server()
        began = time.monotonic()
        lab.api.delete(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/cacheop-mine")
        later = lab.namespace()
        lab.dataset(later)
        wait_for(lambda: lab.api.find(CLAIM.format(later)), 30, "it works again")
        wait_for(
            lambda: lab.api.find(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/cacheop-mine"),
            30,
            "what went meanwhile is back",
        )
        print(f"at work again after {time.monotonic() - began:.1f} s")


def test_it_works_with_rights_in_some_namespaces_only(own_lab: Lab) -> None:
    lab, root = own_lab, "/apis/rbac.authorization.k8s.io/v1"
    lab.api.delete(f"{root}/clusterrolebindings/cacheop-cluster")
    lab.api.delete(f"{root}/clusterroles/cacheop-cluster")
    mine, others = lab.namespace("mine"), lab.namespace("others")
    lab.grant("only", rbac.rules(rbac.CLUSTER), "")
    lab.grant("here", rbac.rules(rbac.ANYWHERE), mine)
    lab.node("a")
    with lab.operator("one", CACHEOP_WATCH_NAMESPACES=mine) as one:
        one.wait_active()
        lab.dataset(mine, shareWith={"namespaces": [others]})
        lab.dataset(others)
        wait_for(lambda: lab.api.find(CLAIM.format(mine)), 15, "it looks after this one")
        wait_for(lambda: lab.named(mine) == {"a"}, 10, "a node is named")
        found = wait_for(lambda: lab.condition(mine, "Shared"), 10, "sharing is told about")
        assert "does not look after" in found["message"]
        time.sleep(2)
        assert lab.api.find(CLAIM.format(others)) is None
        lab.api.delete(lab.path(mine))
        wait_for(lambda: lab.api.find(lab.path(mine)) is None, 15, "it ends")
        assert "forbidden" not in one.log, one.log[-3000:]
