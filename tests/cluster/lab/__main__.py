"""The test cluster's command line; `./dev` calls it.

build [NAME …]     the binaries that are missing (10 minutes on 2 cores), or these
able               exit code 3, and why, where no cluster can be
up                 start the cluster, or mend it
down               end it and remove all it wrote
status             what runs, with the ends of the logs
kubectl ARGS …     kubectl, in the cluster's network
enter CMD …        any command in the cluster's network, with KUBECONFIG
tests CMD …        give the nodes the tree's image, then `enter` alone (others wait their turn)
"""

from __future__ import annotations

import os
import sys
import time

from tests.cluster.lab import build, cluster, images, packages
from tests.cluster.lab.network import CONTROL, MACHINES
from tests.cluster.lab.places import KUBECONFIG


def main(arguments: list[str]) -> int:
    """The verb's exit code."""
    verb, *rest = arguments or ["help"]
    began = time.monotonic()
    try:
        if verb == "build":
            packages.require()
            build.build(rest or build.missing())
        elif verb == "able":
            if why := cluster.hindrance():
                print(f"lab: {why}", file=sys.stderr)
                return 3
        elif verb == "up":
            cluster.up()
            print(f"lab: up after {time.monotonic() - began:.0f} s; ./dev kubectl get nodes")
        elif verb == "down":
            cluster.down()
        elif verb == "status":
            for machine in MACHINES:
                print(f"{machine.name} {machine.address}: {machine.pid or 'does not run'}")
                print(machine.log_tails())
        elif verb == "kubectl":
            enter([str(build.binary("kubectl")), *rest])
        elif verb == "enter" and rest:
            enter(rest)
        elif verb == "tests" and rest:
            cluster.take_turn_of_tests()
            os.environ["CACHEOP_IMAGE"] = images.cacheop()
            os.environ["CACHEOP_REDIS_IMAGE"] = images.redis()
            os.environ["CACHEOP_LAB"] = CONTROL.address
            enter(rest)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def enter(command: list[str]) -> None:
    """Become the command, where the cluster's addresses lead somewhere."""
    os.environ["KUBECONFIG"] = str(KUBECONFIG)
    os.environ["PATH"] = f"{build.directories()}:{os.environ['PATH']}"
    os.execvp("nsenter", CONTROL.in_network(*command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
