"""A real Kubernetes of two nodes on one machine: `python -m tests.cluster.lab`."""
