"""Who is in the cluster, by a fixed list or by what members announce in a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_worker.cluster.view import Member
    from cache_worker.members.membership import Membership
    from cache_worker.members.settings import Cluster
    from cache_worker.members.static import Ask


def open_members(cluster: Cluster, me: Member, ask: Ask) -> Membership:
    """The members as CONFIG says where they are found; without such a place, we alone."""
    if cluster.redis is not None:
        from cache_worker.members.redis import RedisMembers

        return RedisMembers(cluster.redis, me)
    from cache_worker.members.static import StaticMembers

    return StaticMembers(cluster.static, me, ask)
