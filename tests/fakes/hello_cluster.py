"""Nodes of a fixed list that answer `hello`, or do not: in place of the client of peers."""

import asyncio
from dataclasses import replace

from cache_worker.cluster.view import Member
from cache_worker.members.facts import to_meta
from cache_worker.members.static import StaticMembers
from tests.fakes.running_members import RunningMembers

LISTED = [Member(f"n{k}", f"127.0.0.1:{7000 + k}", zone="z") for k in range(3)]


class HelloCluster:
    """Start nodes of LISTED; take them out of `nodes`, or put them into `silent`."""

    def __init__(self):
        self.nodes = {}
        self.silent = set()
        """Who never answers, as behind a cut cable."""
        self.asked = []

    async def ask(self, member, op, meta, seconds):
        self.asked.append((member.address, op))
        if member.node in self.silent:
            await asyncio.sleep(seconds + 1)
        answer = self.nodes.get(member.node)
        if answer is None:
            raise ConnectionRefusedError(member.address)
        await asyncio.sleep(0.001)  # it may leave meanwhile: it was there when it was asked
        return answer(), b""

    def start(self, number, **facts):
        me = replace(LISTED[number], capacity_bytes=10 + number, instance="i", **facts)
        members = StaticMembers(LISTED, me, self.ask)
        self.nodes[me.node] = lambda: to_meta(members.me)
        return RunningMembers(members)
