"""Opens, releases, evictions, fills, deaths and interrupts in any order."""

from __future__ import annotations

import errno

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.passthrough_kernel import FILES, MOMENTS, Mount

OPENS_MAX = 24


class Machine(RuleBasedStateMachine):
    @initialize(complete=st.lists(st.booleans(), min_size=FILES, max_size=FILES))
    def begin(self, complete) -> None:
        self.mount = Mount()
        for row, whole in enumerate(complete):
            if whole:
                self.mount.store.fill(row)

    @precondition(lambda self: len(self.mount.kernel.opened) < OPENS_MAX)
    @rule(row=st.integers(0, FILES - 1))
    def open(self, row) -> None:
        if len(self.mount.kernel.pending) < OPENS_MAX:
            self.mount.ask_open(row + 2)

    @precondition(lambda self: self.mount.kernel.opened)
    @rule(data=st.data())
    def release(self, data) -> None:
        keys = list(self.mount.kernel.opened)
        self.mount.ask_release(keys[data.draw(st.integers(0, len(keys) - 1))])

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_answers(self) -> None:
        self.mount.answer_question()

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_acts_and_dies(self) -> None:
        """The next holder is asked the same again."""
        for node, what, _ in list(self.mount.holder.questions)[:2]:
            self.mount.holder.act(node, what)

    @precondition(lambda self: self.mount.holder.stale)
    @rule()
    def holder_acts_for_one_who_died(self) -> None:
        self.mount.holder.act_stale()

    @precondition(lambda self: self.mount.holder.questions)
    @rule()
    def holder_fails(self) -> None:
        """Whatever it was: the open must not fail, nor anybody wait."""
        node, _, then = self.mount.holder.questions.popleft()
        self.mount.act(lambda: then(node, 0, errno.EIO))

    @precondition(lambda self: self.mount.line.reads)
    @rule(outcome=st.sampled_from(["filled", "filled", "inline", "error", "gone again"]))
    def worker_answers(self, outcome) -> None:
        self.mount.answer_read(outcome)

    @rule(row=st.integers(0, FILES - 1))
    def fill(self, row) -> None:
        self.mount.store.fill(row)

    @rule(row=st.integers(0, FILES - 1))
    def evict(self, row) -> None:
        self.mount.store.evict(row)

    @precondition(lambda self: self.mount.kernel.pending)
    @rule(data=st.data())
    def interrupt(self, data) -> None:
        uniques = [u for u, (op, *_) in self.mount.kernel.pending.items() if op == "open"]
        if not uniques:
            return
        unique = uniques[data.draw(st.integers(0, len(uniques) - 1))]
        self.mount.channel.landing = None  # INTERRUPT is a request, too
        if self.mount.opens.drop(unique):
            place = next(n for n, r in self.mount.channel.entries.items() if r.unique == unique)
            self.mount.channel.fail(self.mount.channel.entries[place], errno.EINTR)

    @rule()
    def tick(self) -> None:
        self.mount.opens.tick()

    @rule(resend=st.booleans())
    def kill(self, resend) -> None:
        self.mount.die(resend=resend)

    @rule(moment=st.sampled_from(MOMENTS))
    def kill_soon(self, moment) -> None:
        self.mount.channel.moment = moment

    @invariant()
    def nothing_fails(self) -> None:
        assert set(self.mount.kernel.refused) <= {errno.EINTR}

    def teardown(self) -> None:
        if not hasattr(self, "mount"):
            return
        mount = self.mount
        mount.settle()
        assert not mount.kernel.pending, "somebody waits for ever"
        assert not mount.channel.entries
        counts = {node: found.count for node, found in mount.opens._nodes.items() if found.count}
        nodes = list(mount.kernel.opened.values())
        assert counts == {node: nodes.count(node) for node in set(nodes)}
        for key in list(mount.kernel.opened):
            mount.ask_release(key)
        assert not any(mount.part)
        assert not any(found.count for found in mount.opens._nodes.values())
        for row in range(FILES):
            mount.store.evict(row)
            if row % 2:  # another file is there when we look
                mount.store.fill(row)
        mount.opens.tick()
        mount.settle()
        assert not any(mount.ids)
        assert set(mount.proofs) <= {0, 1}
        assert not mount.kernel.backing
        self.nothing_fails()


Machine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMachine = Machine.TestCase
