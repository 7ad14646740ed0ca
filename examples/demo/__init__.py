"""The demo: a real S3 server behind a slow link, and a training run that cacheop makes fast."""
