"""`python -m cache_worker VERB …`: one small process each, so each imports only what it needs."""

from __future__ import annotations

import importlib
import sys

# verb -> module with main(arguments) -> exit code
VERBS = {
    "run": "cache_worker.launcher",
    "hold": "cache_worker.holder.server",
    "pod": "cache_worker.pod",
    "node": "cache_worker.csi.node",
    "node-ready": "cache_worker.csi.ready",
    "supervise": "cache_worker.supervisor",
    "work": "cache_worker.worker",
    "mount": "cache_worker.mounts.server",
    "index": "cache_worker.listing",
    "adopt": "cache_worker.adopt",
    "drop": "cache_worker.drop",
    "simulate": "cache_worker.simulate",
    "redis-acl": "cache_worker.members.acl",
    "fsspec-origin": "cache_worker.origins.fsspec_child",
}


def main() -> int:
    """Run the verb; its module flushes and may end the process itself."""
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        print(  # noqa: T201 - this is a command
            f"usage: python -m cache_worker {'|'.join(VERBS)} …", file=sys.stderr
        )
        return 2
    module = importlib.import_module(VERBS[sys.argv[1]])
    code: int = module.main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
