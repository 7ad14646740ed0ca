"""A worker's part in a cluster, put together: members, peers both ways, versions, placement.

Owned by the worker: `start` listens, `tasks` run in its background, `close` ends all.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from cache_worker.cluster.census import Census
from cache_worker.cluster.cluster import Cluster
from cache_worker.cluster.draining import Drain
from cache_worker.cluster.following import REFRESH_SECONDS, Following
from cache_worker.cluster.gathering import Gathering
from cache_worker.cluster.giving import Giving
from cache_worker.cluster.view import Member
from cache_worker.members import open_members
from cache_worker.peers.client import Peers
from cache_worker.peers.server import Caps, PeerServer
from cacheop.api.errors import UserError
from cacheop.api.tokens import peer_token

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from cache_worker.cache import Cache
    from cache_worker.indexing import Indexing
    from cache_worker.reading import Reading
    from cache_worker.settings import Settings


class Clustered:
    """Made on the worker's loop when CONFIG has `peers`."""

    def __init__(
        self, config: Settings, cache: Cache, indexing: Indexing, reading: Reading
    ) -> None:
        if config.token_file is None:
            raise UserError("peers need a token", hint="Set token_file, the same for all nodes")
        token = peer_token(config.token_file.read_text().strip())
        versions, zone = cache.store.versions, config.cluster.zone
        state = versions.state
        me = Member(
            config.node,
            next((m.address for m in config.cluster.static if m.node == config.node), ""),
            zone=zone,
            capacity_bytes=max(1, cache.store.space.quota_bytes),
            instance=uuid.uuid4().hex[:16],
            version=versions.newest(),
            generation=state.generation,
        )
        self._config, self._cache = config, cache
        self.peers = Peers(token, config.node, zone)
        self.members = open_members(config.cluster, me, self.peers.ask)
        self.cluster = Cluster(config.dataset.spec.placement, self.members, self.peers)
        self.census = Census(cache.store, self.cluster)
        self.following = Following(indexing, versions, self.cluster)
        self.server = PeerServer(
            Giving(cache, self.following, reading),
            token,
            config.node,
            zone,
            Caps(answer_seconds=REFRESH_SECONDS),
        )
        cache.cluster = self.cluster
        cache.store.victims.owned = self.cluster.owned

    def start(self) -> None:
        """Listen, and tell the others where."""
        host, _, port = self._config.cluster.peers.rpartition(":")
        address = self.server.listen(host.strip("[]"), int(port))
        if not self.cluster.my_facts.address:
            self.cluster.announce(address=address)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs in the background."""
        tasks = [self.cluster.run(), self.following.run(), self.census.run()]
        if self._config.dataset.spec.prefetch.mode != "Off":
            tasks.append(Gathering(self._cache, self.cluster).run())
        return tasks

    def drain(self) -> Drain:
        """Leave: see draining.py."""
        return Drain(self._cache.store, self.cluster)

    async def close(self) -> None:
        """Stop giving and asking."""
        await asyncio.gather(self.server.close(), self.peers.close(), self.cluster.close())

    def status(self) -> dict[str, Any]:
        """The fields of docs/protocol.md on members and peers."""
        view, me = self.cluster.view, self.cluster.my_facts
        received, sent = self.peers.received, self.server.sent
        live = {member.node: member for member in view.members}
        known = {m.node: m for m in (*self._config.cluster.static, *view.members)}
        return {
            "zone": me.zone,
            "draining": me.draining,
            "owned_cached_bytes": self.census.owned_bytes,
            "members": [
                {
                    "node": node,
                    "zone": member.zone,
                    "live": node in live,
                    "draining": member.draining,
                    "version": member.version,
                }
                for node, member in sorted(known.items())
            ],
            "peer": {
                "in_bytes": received.same_zone_bytes + received.other_zone_bytes,
                "out_bytes": sent.same_zone_bytes + sent.other_zone_bytes,
                "hedged_origin_bytes": self._cache.counters.hedged_origin_bytes,
                "bans": sum(self.cluster.bans.values()),
            },
        }
