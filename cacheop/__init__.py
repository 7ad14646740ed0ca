"""cacheop: a cache between training jobs and slow storage."""

__version__ = "0.1.0"
