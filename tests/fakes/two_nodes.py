"""Nodes over real stores that give each other chunks in memory, no sockets."""

import asyncio
import os

from cache_worker.cluster.giving import Giving
from cache_worker.peers.errors import PeerAbsent
from cache_worker.peers.link import Fetched
from cache_worker.peers.service import Asker
from cache_worker.reading import Reading
from cacheop.api.errors import NotFoundError
from tests.fakes.node_cache import NodeCache
from tests.fakes.peers_in_memory import ClusterOf

ASKER = Asker("b", "")


class Following:
    """Says which version members have."""

    def __init__(self):
        self.expected = set()
        self.my_facts = None

    def expects(self, version):
        return version in self.expected


class Node:
    def __init__(self, root, origin, **how):
        self.cache = NodeCache(root, origin, **how)
        self.following = Following()
        self.giving = Giving(self.cache.cache, self.following, Reading(self.cache.store.policy))

    def provide(self, version, row, chunk=0, *, only_if_present=False):
        return self.giving.provide(
            version, row, chunk, 0,
            only_if_present=only_if_present, hops=1, without=(), asker=ASKER,
        )  # fmt: skip


class TwoNodes:
    """Node `a`, whose cluster asks node `b`'s Giving in memory, and the other way round."""

    def __init__(self, root, origin, **how):
        self.a, self.b = Node(root / "a", origin, **how), Node(root / "b", origin)
        self.origin = origin
        self.passed_on = []
        """(row, chunk) that arrived at a while b asked for them."""
        self.one, self.two = ClusterOf("a", "ab"), ClusterOf("b", "ab")
        self.version = self.a.cache.add_version()
        self.b.cache.add_version()
        for node, cluster in ((self.a, self.one), (self.b, self.two)):
            node.cache.cache.cluster = cluster.cluster
            node.cache.store.victims.owned = cluster.cluster.owned
        self.one.peers.ask = lambda member, op, meta, seconds: self.b.giving.answer(
            op, meta, Asker("a", "")
        )
        self.two.peers.fetch = self.fetch_of_a
        self.two.peers.ask = lambda member, op, meta, seconds: self.a.giving.answer(
            op, meta, Asker("b", "")
        )

    async def fetch_of_a(self, member, version, row, chunk, length, *, only_if_present, **_):
        found = self.a.giving.open_present(version, row, chunk)
        if found is None:
            try:
                arriving = await self.a.provide(version, row, chunk, only_if_present=True)
            except NotFoundError as error:
                raise PeerAbsent("it is not there") from error
            self.passed_on.append((row, chunk))
            return await asyncio.to_thread(_all_of, arriving)
        try:
            data = os.pread(found.fd, found.length, found.offset)
        finally:
            found.close()
        return Fetched(memoryview(data), found.checksum)

    def close(self):
        self.a.cache.close()
        self.b.cache.close()


def _all_of(arriving):
    data = bytearray()
    while piece := arriving.piece(len(data), 10.0):
        data += piece
    return Fetched(memoryview(data), arriving.whole())
