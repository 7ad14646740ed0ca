"""What training code imports: samplers that tell their order to the cache, and datasets over it.

    sampler = PlannedSampler(DistributedSampler(dataset), dataset.paths)
    loader = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=8)

or, where a framework makes the loader: `plan(loader)`. See docs/prefetch.md.
"""

from cacheop.torch.datasets import CacheDataset, CacheShards
from cacheop.torch.sampler import PlannedSampler, paths_of, plan

__all__ = ["CacheDataset", "CacheShards", "PlannedSampler", "paths_of", "plan"]
