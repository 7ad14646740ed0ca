"""Reads through fsspec: `cacheop://dataset[.namespace][@version]/path`."""
