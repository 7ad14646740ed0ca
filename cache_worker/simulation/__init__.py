"""Eviction policies over traces: what each hits, against Belady's optimum. Not in the worker."""
