from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.api.scheduling import Toleration
from cacheop.operator.facts import Taint
from cacheop.operator.kinds import Ref, ref_of
from cacheop.operator.manifests.config import dataset_document
from cacheop.operator.observed import Child, Preload, rfc3339
from cacheop.operator.placement import Drain
from cacheop.operator.plan import plan
from tests.fakes.cluster_facts import (
    NOW,
    SETTINGS,
    UID,
    VERSION,
    document,
    node,
    nodes,
    observed,
    report,
    user,
    worker,
)

CLAIM = Ref("PersistentVolumeClaim", "team", "mine")
VOLUME = Ref("PersistentVolume", "", f"cacheop-{UID}")


def ready(found):
    return next(c for c in found.status["conditions"] if c["type"] == "Ready")


def condition(found, kind):
    return next(c for c in found.status["conditions"] if c["type"] == kind)


def child(ref, **fields):
    return Child(ref, f"uid of {ref}", "f", dataset_uid=UID, **fields)


def deleting(**spec):
    found = document(**spec)
    found["metadata"]["deletionTimestamp"] = rfc3339(NOW - 10)
    return found


def serving(*names, **fields):
    """Ready workers on these nodes."""
    return observed(
        nodes=nodes(*names),
        current=frozenset(names),
        workers=tuple(worker(n) for n in names),
        reports={f"uid-{n}": report(n) for n in names},
        plugins=frozenset(names),
        **fields,
    )


def test_a_new_dataset_gets_all_its_objects():
    found = plan(document(), observed(), SETTINGS)
    assert found.finalizer
    assert [str(ref_of(o)) for o in found.objects] == [
        "ConfigMap team/cacheop-mine",
        "NetworkPolicy team/cacheop-mine",
        "Service team/cacheop-mine",
        "Service team/cacheop-mine-workers",
        f"PersistentVolume cacheop-{UID}",
        "PersistentVolumeClaim team/mine",
        "DaemonSet team/cacheop-mine",
    ]
    assert found.status["phase"] == "Pending"
    assert ready(found)["reason"] == "Starting"
    assert found.status["observedGeneration"] == 3
    assert "cacheop.io/dataset=mine" in found.status["selector"]


def test_a_ready_one_says_what_is_cached():
    found = plan(document(), serving("a"), SETTINGS)
    status = found.status
    assert (status["phase"], status["version"]) == ("Ready", VERSION)
    assert (status["fileNum"], status["ufsTotal"], status["ufsTotalBytes"]) == (10, "1000", 1000)
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["cacheStates"]["cachedPercentage"] == "50.0%"
    assert status["nodes"] == [{"name": "a", "cachedBytes": 500, "complete": False}]
    assert ready(found)["status"] == "True"
    assert not found.events


def test_while_it_is_indexed_nothing_is_said_to_be_cached():
    indexing = {"uid-a": report("a", phase="Indexing", version="", file_count=0, bytes_total=0)}
    found = plan(
        document(), observed(workers=(worker("a", ready=False),), reports=indexing), SETTINGS
    )
    assert found.status["phase"] == "Indexing"
    assert not found.status["cacheStates"].get("cachedPercentage")


def test_it_is_ready_when_its_version_is_known():
    """Who waits for Ready reads status.version next."""
    untold = plan(document(), observed(workers=(worker("a"),)), SETTINGS)
    assert (untold.status["phase"], ready(untold)["status"]) == ("Indexing", "False")
    told = plan(document(), serving("a"), SETTINGS)
    assert (told.status["phase"], told.status["version"]) == ("Ready", VERSION)


def test_a_new_version_is_told_when_no_worker_has_the_one_before():
    """A pod that starts then gets it on whatever node it is."""
    newer = "v" + VERSION[1:-1] + ("0" if VERSION[-1] != "0" else "1")

    def version(*, a, b, known):
        reports = {"uid-a": report("a", version=a), "uid-b": report("b", version=b)}
        seen = replace(serving("a", "b"), reports=reports)
        before = {**document(), "status": {"version": known}}
        return plan(before, seen, SETTINGS).status["version"]

    assert version(a=newer, b=VERSION, known=VERSION) == VERSION
    assert version(a=newer, b=newer, known=VERSION) == newer
    assert version(a=VERSION, b=VERSION, known="") == VERSION


def test_workers_are_told_what_their_config_map_says():
    """Else each of them takes up a change at its start that is none."""
    worker_defaults = replace(SETTINGS.worker, tolerations=(Toleration(key="gpu"),))
    found = plan(document(), serving("a"), replace(SETTINGS, worker=worker_defaults))
    written = next(o for o in found.objects if o["kind"] == "ConfigMap")["data"]["dataset.json"]
    assert dataset_document(found.owner) == json.loads(written)


def test_copies_count_once():
    seen = serving("a", "b")
    seen = replace(
        seen,
        reports={
            "uid-a": report("a", owned_cached_bytes=400, cached_bytes=800, origin_bytes=700),
            "uid-b": report("b", owned_cached_bytes=450, cached_bytes=900, origin_bytes=300),
        },
    )
    states = plan(document(replicas=2), seen, SETTINGS).status["cacheStates"]
    assert (states["cachedBytes"], states["cachedPercentage"]) == (850, "85.0%")
    assert states["originRatio"] == "1.00"


def test_a_slip_in_the_spec_is_told_and_touches_nothing():
    bad = document(mounts=[{"mountPoint": "file:///data", "path": "/"}])
    found = plan(bad, serving("a"), SETTINGS)
    assert not found.objects
    assert not found.remove
    assert found.status["phase"] == "Failed"
    assert "pvc://claim/path" in ready(found)["message"]
    twice = document(
        mounts=[
            {
                "mountPoint": "s3://b/",
                "options": {"key": "x"},
                "encryptOptions": [
                    {"name": "key", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
                ],
            }
        ]
    )
    assert "keep only one" in ready(plan(twice, observed(), SETTINGS))["message"]


def test_a_name_that_is_taken_is_left_alone_and_told():
    seen = observed(taken={CLAIM: "there already and not of this Dataset"})
    found = plan(document(), seen, SETTINGS)
    assert CLAIM not in [ref_of(o) for o in found.objects]
    assert ready(found)["reason"] == "NameTaken"
    assert "PersistentVolumeClaim team/mine" in ready(found)["message"]


def test_what_keeps_a_worker_away_is_told_to_the_pod():
    full = worker("b", ready=False, running=False, problem="Insufficient memory")
    seen = observed(
        nodes=nodes("a", "b"),
        workers=(worker("a"), full),
        users=(user("train", "b"), user("elsewhere", "a")),
    )
    found = plan(document(), seen, SETTINGS)
    (event,) = found.events
    assert (event.kind, event.name) == ("Pod", "train")
    assert "node b" in event.message
    assert "Insufficient memory" in event.message


def test_a_taint_that_is_not_tolerated_is_told_too():
    there = {"a": node("a", taints=(Taint("gpu"),))}
    found = plan(document(tolerations=[]), observed(nodes=there, users=(user("t", "a"),)), SETTINGS)
    assert "does not tolerate the taint gpu" in found.events[0].message


def test_where_a_dataset_names_no_tolerations_the_charts_hold():
    def tolerated(settings, **spec):
        there = {"a": node("a", taints=(Taint("gpu", "yes", "NoSchedule"),))}
        found = plan(document(**spec), observed(nodes=there, users=(user("t", "a"),)), settings)
        (daemon_set,) = [d for d in found.objects if d["kind"] == "DaemonSet"]
        pod = daemon_set["spec"]["template"]["spec"]
        return pod["tolerations"], not any("gpu" in event.message for event in found.events)

    def chart(*tolerations):
        return replace(SETTINGS, worker=replace(SETTINGS.worker, tolerations=tolerations))

    assert tolerated(SETTINGS) == ([{"operator": "Exists"}], True)
    gpu = Toleration(key="gpu", operator="Exists")
    assert tolerated(chart(gpu)) == ([{"key": "gpu", "operator": "Exists"}], True)
    assert tolerated(chart()) == ([], False)
    own = [{"key": "gpu", "operator": "Exists"}]
    assert tolerated(chart(), tolerations=own) == (own, True)


def test_shared_with_who_accepts():
    spec = {"shareWith": {"namespaces": ["nlp", "web"]}}
    seen = observed(accepting={"nlp": "", "web": "the namespace is not annotated"})
    found = plan(document(**spec), seen, SETTINGS)
    claims = [ref_of(o) for o in found.objects if o["kind"] == "PersistentVolumeClaim"]
    assert claims == [CLAIM, Ref("PersistentVolumeClaim", "nlp", "mine")]
    assert condition(found, "Shared")["status"] == "False"
    assert "web: the namespace is not annotated" in condition(found, "Shared")["message"]


def test_what_is_not_shared_any_more_goes():
    other = Ref("PersistentVolumeClaim", "nlp", "mine")
    pv = Ref("PersistentVolume", "", f"cacheop-{UID}-nlp")
    children = {ref: child(ref) for ref in (CLAIM, VOLUME, other, pv)}
    assert set(plan(document(), observed(children=children), SETTINGS).remove) == {other, pv}


def test_a_volume_whose_claim_was_deleted_is_freed():
    children = {VOLUME: child(VOLUME, phase="Released")}
    assert plan(document(), observed(children=children), SETTINGS).rebind == ((VOLUME, ""),)


def test_a_claim_whose_volume_was_deleted_gets_the_new_one():
    lost = child(CLAIM, phase="Lost")
    children = {CLAIM: lost, VOLUME: child(VOLUME, phase="Available")}
    found = plan(document(), observed(children=children), SETTINGS)
    assert found.rebind == ((VOLUME, lost.uid),)


def test_suspend_is_told_until_it_is_so():
    asks = plan(document(suspend=True), serving("a"), SETTINGS).asks
    assert [ask.op for ask in asks] == ["suspend"]
    seen = replace(serving("a"), reports={"uid-a": report("a", suspended=True)})
    assert not plan(document(suspend=True), seen, SETTINGS).asks
    assert [ask.op for ask in plan(document(), seen, SETTINGS).asks] == ["resume"]


def test_a_refresh_is_asked_for_once():
    wanted = document(refresh={"requestedAt": "2027-01-01"})
    (ask,) = plan(wanted, serving("a", "b"), SETTINGS).asks
    assert (ask.op, ask.meta["requested"]) == ("refresh", "2027-01-01")
    done = plan(wanted, serving("a", refreshed="2027-01-01"), SETTINGS)
    assert not done.asks
    assert done.status["refreshedAt"] == "2027-01-01"
    wanted["status"] = done.status
    assert not plan(wanted, serving("a"), SETTINGS).asks, "by whichever operator"


def test_scaling_in_hands_over_first():
    seen = serving("a", "b", last_use={"a": NOW - 9999, "b": NOW - 9999})
    found = plan(document(), seen, SETTINGS)
    (ask,) = found.asks
    assert ask.op == "drain"
    assert found.placement is not None
    assert found.placement.nodes == ("a", "b")
    drained = replace(seen, drains={ask.pod.node: Drain(NOW, ended=True)})
    after = plan(document(), drained, SETTINGS)
    assert after.placement is not None
    assert ask.pod.node not in after.placement.nodes


def test_a_worker_that_handed_over_and_is_wanted_again_starts_anew():
    template = plan(document(), serving("a"), SETTINGS).objects[-1]["spec"]["template"]
    digest = template["metadata"]["annotations"]["cacheop.io/template-hash"]
    seen = observed(
        workers=(worker("a", template=digest),),
        reports={"uid-a": report("a", draining=True)},
        plugins=frozenset("a"),
    )
    assert [pod.node for pod in plan(document(), seen, SETTINGS).replace] == ["a"]


def test_an_idle_dataset_is_ready_and_keeps_what_it_knows():
    before = plan(document(), serving("a"), SETTINGS).status
    idle = document(replicas=0)
    idle["status"] = before
    found = plan(idle, observed(), SETTINGS)
    assert (found.status["phase"], ready(found)["reason"]) == ("Ready", "Idle")
    for key in ("version", "fileNum", "ufsTotal", "cacheStates", "nodes"):
        assert found.status[key] == before[key]


def test_a_failed_index_says_why():
    failed = report("a", phase="Failed", version="", error="bucket: access denied. Check the keys")
    seen = observed(workers=(worker("a", ready=False),), reports={"uid-a": failed})
    found = plan(document(), seen, SETTINGS)
    assert found.status["phase"] == "Failed"
    assert "access denied" in ready(found)["message"]


def test_preload_is_told():
    spec = {"preload": [{"path": "/train"}]}
    loading = replace(serving("a"), preload=Preload(VERSION, 40, finished=False))
    assert condition(plan(document(**spec), loading, SETTINGS), "Preloaded")["message"] == "40 %"


def test_times_of_conditions_move_only_with_their_status():
    first = plan(document(), serving("a"), SETTINGS)
    again = document()
    again["status"] = first.status
    later = plan(again, replace(serving("a"), now=NOW + 50), SETTINGS)
    assert ready(later)["lastTransitionTime"] == ready(first)["lastTransitionTime"]
    assert later.status == first.status, "nothing to write"
    worse = plan(again, observed(now=NOW + 50), SETTINGS)
    assert ready(worse)["lastTransitionTime"] == rfc3339(NOW + 50)


def test_deleting_waits_for_pods_and_says_for_whom():
    found = plan(deleting(), observed(users=(user("train", "a"),)), SETTINGS)
    assert found.finalizer
    assert found.status["phase"] == "Deleting"
    assert "team/train" in ready(found)["message"]
    assert found.events[0].kind == "Dataset"


def test_deleting_removes_what_nobody_owns_then_ends():
    children = {ref: child(ref) for ref in (CLAIM, VOLUME)}
    found = plan(deleting(), observed(children=children), SETTINGS)
    assert found.remove == (VOLUME,)
    assert found.finalizer
    gone = {CLAIM: child(CLAIM), VOLUME: child(VOLUME, deleting=True)}
    assert not plan(deleting(), observed(children=gone), SETTINGS).finalizer


def test_a_dataset_that_nobody_can_read_can_be_deleted():
    bad = deleting(mounts=[])
    found = plan(bad, observed(users=(user("train", "a"),)), SETTINGS)
    assert not found.finalizer
    assert found.status["phase"] == "Deleting"


@given(
    st.frozensets(st.sampled_from("abc")),
    st.frozensets(st.sampled_from("abc")),
    st.frozensets(st.sampled_from("abc")),
    st.integers(0, 3),
    st.sampled_from(["Ready", "Indexing", "Failed", "Pending"]),
)
def test_doing_what_is_planned_leads_to_rest(running, used, is_ready, replicas, phase):
    """Once the DaemonSet names what was planned and the status is written, all is done."""
    doc = document(replicas=replicas)
    seen = observed(
        nodes=nodes("a", "b", "c"),
        current=running,
        workers=tuple(worker(n, ready=n in is_ready) for n in sorted(running)),
        reports={f"uid-{n}": report(n, phase=phase) for n in running},
        users=tuple(user(f"p-{n}", n) for n in sorted(used)),
        drains={n: Drain(NOW, ended=True) for n in running},
        last_use=dict.fromkeys(running, NOW - 99999),
    )
    for _ in range(4):
        found = plan(doc, seen, SETTINGS)
        assert found.placement is not None
        named = frozenset(found.placement.nodes)
        settled = named == seen.current and found.status == doc.get("status")
        doc = {**doc, "status": found.status}
        kept = tuple(pod for pod in seen.workers if pod.node in named)
        seen = replace(seen, current=named, workers=kept)
        if settled:
            return
    pytest.fail("it goes on and on")
