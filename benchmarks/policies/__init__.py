"""`./dev bench-policies`: eviction policies over traces, beside libcachesim's and the optimum."""
