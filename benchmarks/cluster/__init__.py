"""`./dev bench-cluster`: many nodes, one cache, measured beside the limits of the same links."""
