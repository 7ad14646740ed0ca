"""The lab's addresses and wires: 198.18.0.0/15 (for benchmarks, RFC 2544), seen by nobody outside.

The control machine is the switch: its bridge has a port for each node. Pods have routed addresses,
no NAT, as on most clouds; each hangs on a link of its own (CNI `ptp`), so that a Service's answers
pass the node's rules even between two pods of one node: a bridge there would need br_netfilter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster.lab.machines import Machine, run

if TYPE_CHECKING:
    from collections.abc import Sequence

POD_RANGE = "198.18.0.0/16"
SERVICE_RANGE = "198.19.0.0/16"
API_SERVICE_ADDRESS = "198.19.0.1"
CONTROL = Machine("control", "198.18.0.1")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs pods, in a zone of its own."""

    machine: Machine
    pods: str
    zone: str

    @property
    def name(self) -> str:
        """The machine's, and the Node object's."""
        return self.machine.name


NODES = (
    Node(Machine("node-a", "198.18.0.11"), "198.18.1.0/24", "zone-a"),
    Node(Machine("node-b", "198.18.0.12"), "198.18.2.0/24", "zone-b"),
)
MACHINES = (CONTROL, *(node.machine for node in NODES))


def wire(nodes: Sequence[Node]) -> None:
    """Connect machines that were started just now."""
    control = ["link set lo up", "link add lab0 type bridge forward_delay 0"]
    control += [f"addr add {CONTROL.address}/24 dev lab0", "link set lab0 up"]
    for node in nodes:
        port = f"to-{node.name}"
        control += [f"link add {port} type veth peer name eth0 netns {node.machine.pid}"]
        control += [f"link set {port} master lab0", f"link set {port} up"]
    control += [f"route add {node.pods} via {node.machine.address}" for node in nodes]
    # From outside the process namespaces: `netns` takes a process of ours.
    _ip(CONTROL, control)
    for node in nodes:
        lines = ["link set lo up", f"addr add {node.machine.address}/24 dev eth0"]
        lines += ["link set eth0 up", f"route add default via {CONTROL.address}"]
        lines += [
            f"route add {other.pods} via {other.machine.address}"
            for other in nodes
            if other is not node
        ]
        _ip(node.machine, lines)


def _ip(machine: Machine, lines: Sequence[str]) -> None:
    run(machine.in_network("ip", "-batch", "-"), given="\n".join(lines))
