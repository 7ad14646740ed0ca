"""`python -m cache_worker node-ready KUBELET_DIR`: whether the node plugin serves; its probe.

It listens only when it holds every mount again, so that somebody listens is the answer.
"""

from __future__ import annotations

import socket
import sys

SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Exit code 0: it does."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cache_worker node-ready KUBELET_DIR\n")
        return 2
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(f"{arguments[0]}/plugins/cacheop.io/csi.sock")
        except OSError as error:
            sys.stderr.write(f"the node plugin is not ready: {error}\n")
            return 1
    return 0
