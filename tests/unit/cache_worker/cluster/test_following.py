"""Which version is the cluster's, and how a member comes to it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cache_worker.cluster.following import Following, newest
from cache_worker.cluster.view import Member
from cacheop.api.errors import OriginError, StoreError
from tests.fakes.peers_in_memory import ClusterOf


def member(node, version, generation):
    return Member(node, version=version, generation=generation)


def test_the_most_often_made_version_is_the_newest_whatever_its_name():
    away = member("a", "ff", 3)
    here = [member("b", "11", 4), member("c", "11", 4), member("d", "", 0)]
    assert newest([away, *here]) == here[:2]
    assert newest([Member("a"), Member("b")]) == []


def test_of_two_made_at_the_same_time_all_take_the_same():
    one, other = member("a", "11", 2), member("b", "22", 2)
    assert newest([one, other]) == newest([other, one]) == [other]


versions = st.sampled_from(["", "11", "22", "33"])


@given(st.lists(st.builds(member, st.sampled_from("abcdef"), versions, st.integers(0, 3))))
def test_all_that_see_the_same_members_agree(members):
    found = newest(members)
    assert found == newest(members[::-1])
    assert len({(m.version, m.generation) for m in found}) <= 1
    assert bool(found) == any(m.version for m in members)


class State:
    def __init__(self, *kept, generation=0):
        self.kept, self.generation = list(kept), generation


class Versions:
    """What Following needs of them, in memory."""

    def __init__(self, *kept, generation=0):
        self.state = State(*kept, generation=generation)
        self.saved = 0

    def current(self):
        return self.newest() or None

    def newest(self):
        return self.state.kept[-1] if self.state.kept else ""

    def renew(self, name):
        self.state.kept.remove(name)
        self.state.kept.append(name)

    def save(self):
        self.saved += 1


class Indexing:
    """Adopts at once; lists `finds`, or fails."""

    def __init__(self, versions):
        self.versions = versions
        self.running = self.error = None
        self.finds = "new"
        self.adopted, self.listings = [], 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.listed = lambda *_: None
        self._refresh = None

    async def adopt(self, version, fetch):
        await asyncio.sleep(0)
        self.adopted.append(version)
        self.versions.state.kept.append(version)
        return {"version": version, "changed": True}

    async def refresh(self, progress=None):
        self._refresh = self._refresh or asyncio.create_task(self._run())
        return await asyncio.shield(self._refresh)

    async def _run(self):
        self.listings += 1
        await self.gate.wait()
        if isinstance(self.finds, Exception):
            raise self.finds
        before = list(self.versions.state.kept)
        if self.finds in before:
            before.remove(self.finds)
            self.versions.state.kept.remove(self.finds)
        self.versions.state.kept.append(self.finds)
        self.listed(self.finds, before)
        return {"version": self.finds}

    def choose_version(self):
        return True


class Follower:
    """A Following of node `a` among b, c and d."""

    def __init__(self, *kept, generation=0):
        self.one = ClusterOf("a")
        self.versions = Versions(*kept, generation=generation)
        self.indexing = Indexing(self.versions)
        self.following = Following(self.indexing, self.versions, self.one.cluster)
        facts = self.one.cluster.my_facts
        self.one.cluster.announce(version=self.versions.newest(), generation=generation)
        assert facts.node == "a"

    async def runs(self, seconds=0.3):
        async with self.one:
            task = asyncio.create_task(self.following.run())
            self.one.cluster._heard.set()
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def sees(self, *members):
        self.one.members.now(*members)


def test_who_was_away_adopts_what_was_made_meanwhile():
    async def run():
        one = Follower("old", generation=1)
        one.sees(member("b", "made", 2), member("c", "old", 1))
        await one.runs()
        assert one.indexing.adopted == ["made"]
        assert one.versions.state.generation == 2
        facts = one.one.cluster.my_facts
        assert (facts.version, facts.generation) == ("made", 2)
        assert one.following._caught_up.is_set()

    asyncio.run(run())


def test_an_older_version_of_who_comes_back_is_nobodys():
    async def run():
        one = Follower("new", generation=5)
        one.sees(member("b", "old", 4), member("c", "new", 5))
        await one.runs()
        assert one.indexing.adopted == []
        assert one.versions.newest() == "new"

    asyncio.run(run())


def test_a_version_that_is_kept_is_made_current_again_without_a_transfer():
    async def run():
        one = Follower("first", "second", generation=2)
        one.sees(member("b", "first", 3))
        await one.runs()
        assert one.indexing.adopted == []
        assert one.versions.state.kept == ["second", "first"]
        assert one.versions.state.generation == 3

    asyncio.run(run())


def test_a_holder_that_fails_is_not_the_only_one_asked():
    async def run():
        one = Follower()
        one.sees(member("b", "made", 1), member("c", "made", 1))
        tried = []

        async def adopt(version, fetch):
            tried.append(version)
            if len(tried) == 1:
                raise StoreError("b does not answer")
            one.versions.state.kept.append(version)
            return {}

        one.indexing.adopt = adopt
        await one.runs(1.5)
        assert tried == ["made", "made"]

    asyncio.run(run())


def test_who_lists_and_fails_does_not_list_on_and_on():
    async def run():
        one = Follower()
        one.sees()  # alone
        one.indexing.finds = OriginError("403")
        await one.runs(1.6)
        assert 1 <= one.indexing.listings <= 3

    asyncio.run(run())


def test_a_listing_counts_though_who_asked_for_it_went_away():
    async def run():
        one = Follower("old", generation=4)
        one.sees(member("b", "old", 6))
        one.indexing.gate.clear()
        asking = asyncio.create_task(one.following.list_here())
        await asyncio.sleep(0.01)
        asking.cancel()
        one.indexing.gate.set()
        await asyncio.sleep(0.01)
        assert one.versions.state.generation == 7
        facts = one.one.cluster.my_facts
        assert (facts.version, facts.generation) == ("new", 7)

    asyncio.run(run())


def test_a_listing_that_found_nothing_new_makes_no_generation():
    async def run():
        one = Follower("same", generation=4)
        one.indexing.finds = "same"
        one.indexing.versions.state.kept = ["same"]

        async def refresh(progress=None):
            one.indexing.listed("same", ["same"])
            return {"version": "same"}

        one.indexing.refresh = refresh
        assert (await one.following.list_here())["generation"] == 4
        assert "same" not in one.one.cluster._settled  # others may have chunks of it

    asyncio.run(run())


def test_new_mounts_wait_while_a_version_is_on_its_way_but_not_for_ever():
    async def run():
        one = Follower()
        started = asyncio.get_running_loop().time()
        one.indexing.running = object()
        await one.following.caught_up(0.3)
        assert 0.3 <= asyncio.get_running_loop().time() - started < 3
        one.following._caught_up.set()
        await asyncio.wait_for(one.following.caught_up(30), 1)

    asyncio.run(run())
