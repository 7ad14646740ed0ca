"""The command line against a Kubernetes cluster."""
