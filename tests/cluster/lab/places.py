"""Where the lab keeps what it builds, and what runs. Never in the tree."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cacheop/kubernetes"
# Short: unix sockets lie below it, and their paths end at 107 bytes. One cluster a machine: its
# networks and image stores are big, and tests of several checkouts take turns.
STATE = Path(os.environ.get("CACHEOP_CLUSTER_DIR", "/var/tmp/cacheop-cluster"))
KUBECONFIG = STATE / "kubeconfig"
LOCK = STATE.with_suffix(".lock")
TESTS_LOCK = STATE.with_suffix(".tests.lock")
TREE = Path(__file__).parents[3]
MODULES = Path(__file__).parent / "modules"
