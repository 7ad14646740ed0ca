"""The cache worker: one Dataset on one node. It knows `cacheop.api` and nothing else of cacheop."""
