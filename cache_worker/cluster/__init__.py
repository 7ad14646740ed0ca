"""One cache of many nodes: who owns a chunk, whom to ask for it, what to give, how to leave.

These decide: view, route, placement, bulk_placement, health, pace, news. Around them: asking (asks
peers and learns how they do), cluster (which chunks are ours, how to get the others'), giving (what
peers get of us), following (one version for all), gathering, draining, census. `clustered` joins
all. The wire is in cache_worker/peers, who is there in cache_worker/members.
"""
