from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from cacheop.api.errors import CredentialError, ProtocolError, UserError, WorkerUnavailable
from cacheop.operator.asking import Worker
from tests.fakes.control_port import ControlPorts, ScriptedWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "c" * 64


@pytest.fixture
def ports() -> Iterator[ControlPorts]:
    with ControlPorts() as found:
        yield found


def ask(port: int, *ops: str, token: str = TOKEN, **meta):
    async def talk():
        async with Worker("127.0.0.1", token, port) as worker:
            return [await worker.ask(op, **meta) for op in ops]

    return asyncio.run(asyncio.wait_for(talk(), 10))


def test_it_asks_as_who_may_do_everything(ports: ControlPorts):
    worker = ScriptedWorker("a")
    port = ports.open(worker, "127.0.0.1", TOKEN)
    status, _ = ask(port, "status", "suspend")
    assert status["node"] == "a"
    assert worker.ops() == ["suspend"]


def test_progress_comes_before_the_answer(ports: ControlPorts):
    worker = ScriptedWorker("a")
    worker.loads = [{"bytes": 1}, {"bytes": 2}, {"bytes": 3, "phase": "Complete"}]
    port = ports.open(worker, "127.0.0.1", TOKEN)
    seen = []
    (answer,) = ask(port, "load", on_event=seen.append, paths=["train"])
    assert seen == worker.loads[:-1]
    assert answer == worker.loads[-1]
    assert worker.asked[0]["paths"] == ["train"]


def test_what_a_worker_refuses_is_raised(ports: ControlPorts):
    worker = ScriptedWorker("a")
    worker.refuse["refresh"] = UserError("spec.placement cannot change")
    port = ports.open(worker, "127.0.0.1", TOKEN)
    with pytest.raises(UserError, match=r"spec\.placement"):
        ask(port, "refresh")
    with pytest.raises(CredentialError):
        ask(port, "status", token="other")


def test_an_unknown_operation_is_told_from_a_worker_that_is_away(ports: ControlPorts):
    port = ports.open(ScriptedWorker("a"), "127.0.0.1", TOKEN)
    with pytest.raises(ProtocolError, match="not served"):
        ask(port, "dance")
    with pytest.raises(WorkerUnavailable):
        ask(1, "status")


def test_who_says_nothing_is_not_waited_for(ports: ControlPorts):
    worker = ScriptedWorker("a")
    worker.loads, worker.pause_seconds = [{}, {}], 5.0
    port = ports.open(worker, "127.0.0.1", TOKEN)
    began = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="says nothing"):
        ask(port, "load", silence_seconds=0.2)
    assert time.monotonic() - began < 3
