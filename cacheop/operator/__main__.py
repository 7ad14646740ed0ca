"""`python -m cacheop.operator`: Kubernetes runs it, or a developer with KUBECONFIG."""

from __future__ import annotations

import sys

from cacheop.operator.run import main

if __name__ == "__main__":
    sys.exit(main())
