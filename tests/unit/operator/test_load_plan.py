from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cacheop.api.dataload import parse_dataload
from cacheop.operator.load_plan import LoadPlan, Moment, Run, Target, plan_load
from cacheop.operator.observed import rfc3339, seconds_of
from tests.fakes.cluster_facts import NOW, VERSION

READY = Target(VERSION, workers=2)
DONE = {"phase": "Complete", "bytes": 10, "bytes_total": 10, "files": 2, "files_total": 2}
FAILED = {**DONE, "phase": "Failed", "failed_files": 1, "failed": [{"path": "a", "error": "gone"}]}


def spec(**fields):
    document = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "l"},
        "spec": {"dataset": "mine", **fields},
    }
    return parse_dataload(document).spec


def step(run=None, target=READY, *, before=None, now=NOW, generation=1, **fields) -> LoadPlan:
    at = Moment(now, NOW - 100, generation, before or {})
    return plan_load(spec(**fields), at, target, run)


def reason(found: LoadPlan) -> str:
    return found.status["conditions"][0]["reason"]


def test_it_starts_when_workers_are_ready():
    found = step()
    assert found.action == "start"
    assert found.wants_worker
    assert found.status["phase"] == "Loading"
    assert found.status["version"] == VERSION
    assert found.status["attempts"] == 1
    assert found.status["startedAt"] == rfc3339(NOW)


def test_it_waits_for_the_dataset_and_its_workers():
    missing = step(target=Target(missing="there is no Dataset mine"))
    assert (missing.action, missing.status["phase"], reason(missing)) == (
        "",
        "Pending",
        "NoDataset",
    )
    waiting = step(target=Target(VERSION, workers=0))
    assert reason(waiting) == "WaitingForWorker"
    assert waiting.wants_worker, "so that replicas: 0 wakes up"


def test_progress_is_told():
    told = {
        "bytes": 512, "bytes_total": 2048, "files": 1, "files_total": 4, "phase": "Loading",
        "rate_bytes_per_second": 1 << 30, "eta_seconds": 200,
    }  # fmt: skip
    begun = step().status
    found = step(Run(VERSION, told), before=begun)
    assert found.action == ""
    assert found.status["percentage"] == 25
    assert (found.status["rate"], found.status["eta"]) == ("1.0Gi/s", "3m20s")
    assert found.status["startedAt"] == begun["startedAt"]


def test_complete_only_when_workers_verified_all():
    found = step(Run(VERSION, DONE, ended=True, ended_at=NOW), before=step().status)
    assert found.status["phase"] == "Complete"
    assert found.status["percentage"] == 100
    assert found.status["finishedAt"] == rfc3339(NOW)
    almost = {**DONE, "phase": "Loading", "files": 1}
    assert step(Run(VERSION, almost), before=step().status).status["percentage"] == 99


def test_failed_files_are_tried_again_then_named():
    status = step(backoffLimit=1).status
    run = Run(VERSION, FAILED, ended=True, ended_at=NOW)
    soon = step(run, before=status, backoffLimit=1, now=NOW + 1)
    assert (soon.action, reason(soon)) == ("", "Retrying")
    assert soon.again_at == NOW + 10
    again = step(run, before=soon.status, backoffLimit=1, now=NOW + 10)
    assert again.action == "start"
    assert again.status["attempts"] == 2
    assert again.status["startedAt"] == status["startedAt"]
    last = step(run, before=again.status, backoffLimit=1, now=NOW + 99)
    assert last.status["phase"] == "Failed"
    assert last.status["failed"] == [{"path": "/a", "error": "gone"}]


def test_a_worker_that_was_lost_is_no_end():
    run = Run(VERSION, DONE, ended=True, error="node a: went away", ended_at=NOW)
    assert reason(step(run, before=step().status)) == "Retrying"


def test_a_new_operator_begins_again_what_was_under_way():
    found = step(None, before={**step().status, "bytes": 5})
    assert found.action == "start"


def test_suspend_pauses_and_goes_on():
    begun = step().status
    paused = step(Run(VERSION, {}), before=begun, suspend=True, generation=2)
    assert (paused.action, reason(paused)) == ("stop", "Suspended")
    assert step(None, before=paused.status, generation=3).action == "start"


def test_an_edit_begins_it_anew():
    begun = step().status
    found = step(Run(VERSION, {"bytes": 3}), before=begun, generation=2)
    assert found.action == "start"


def test_cancel_ends():
    found = step(Run(VERSION, {"bytes": 3}), before=step().status, cancel=True, generation=2)
    assert (found.action, found.status["phase"]) == ("stop", "Cancelled")
    assert found.status["bytes"] == 3
    after = step(None, before=found.status, cancel=True, generation=2, now=NOW + 99)
    assert (after.action, after.status["phase"]) == ("", "Cancelled")


def test_what_is_over_stays_over_until_it_is_edited():
    over = step(Run(VERSION, DONE, ended=True), before=step().status).status
    assert step(None, before=over, now=NOW + 999).action == ""
    assert step(None, before=over, generation=2).action == "start"


def test_it_is_deleted_some_time_after_its_end():
    over = step(Run(VERSION, DONE, ended=True), before=step().status).status
    kept = step(None, before=over, now=NOW + 59, ttlSecondsAfterFinished=60)
    assert (kept.action, kept.again_at) == ("", NOW + 60)
    assert step(None, before=over, now=NOW + 60, ttlSecondsAfterFinished=60).action == "delete"


class TestByTheClock:
    AT_3 = datetime(2027, 1, 15, 3, tzinfo=UTC).timestamp()  # NOW is 08:00 on that day
    TOMORROW = AT_3 + 86400

    def step(self, run=None, **fields) -> LoadPlan:
        return step(run, policy="Cron", schedule="0 3 * * *", **fields)

    def test_it_waits_for_its_time(self):
        assert rfc3339(NOW) == "2027-01-15T08:00:00Z"
        found = self.step()
        assert (found.action, reason(found)) == ("", "Scheduled")
        assert found.again_at == self.TOMORROW
        assert not found.wants_worker

    def test_it_starts_at_its_time_and_again_a_day_later(self):
        waiting = self.step().status
        started = self.step(before=waiting, now=self.TOMORROW)
        assert started.action == "start"
        assert seconds_of(started.status["lastScheduleTime"]) == self.TOMORROW
        over = self.step(
            Run(VERSION, DONE, ended=True), before=started.status, now=self.TOMORROW + 60
        ).status
        assert over["phase"] == "Complete"
        waits = self.step(before=over, now=self.TOMORROW + 70)
        assert (waits.action, waits.again_at) == ("", self.TOMORROW + 86400)
        assert self.step(before=over, now=self.TOMORROW + 86400).action == "start"

    def test_what_was_missed_is_made_up_for_once(self):
        started = self.step(before=self.step().status, now=self.TOMORROW + 5 * 86400 + 7)
        assert started.action == "start"
        over = self.step(
            Run(VERSION, DONE, ended=True), before=started.status, now=self.TOMORROW + 5 * 86400 + 9
        ).status
        assert self.step(before=over, now=self.TOMORROW + 5 * 86400 + 10).action == ""

    def test_a_suspended_one_starts_nothing(self):
        found = self.step(before=self.step().status, now=self.TOMORROW, suspend=True)
        assert found.action == ""


@pytest.mark.parametrize("phase", ["Complete", "Failed", "Cancelled"])
def test_statuses_are_stable(phase):
    """A pass over what is over writes nothing new."""
    over = {"phase": phase, "observedGeneration": 1, "finishedAt": rfc3339(NOW)}
    fields = {"cancel": True} if phase == "Cancelled" else {}
    assert step(None, before=over, **fields).status == over
