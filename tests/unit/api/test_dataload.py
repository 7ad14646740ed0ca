from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from cacheop.api.dataload import DataLoadSpec, parse_dataload, read_dataload, to_document
from cacheop.api.errors import SpecError
from tests.fakes.documents import any_json, names_below, right

PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "nightly"},
        "spec": {"dataset": "demo", **spec},
    }


def test_the_least_load_loads_all_once() -> None:
    spec = parse_dataload(document()).spec
    assert [target.path for target in spec.target] == ["/"]
    assert (spec.policy, spec.replicas, spec.backoff_limit) == ("Once", 1, 3)


def test_replicas_is_a_number_or_all() -> None:
    assert parse_dataload(document(replicas="all")).spec.replicas == "all"
    assert parse_dataload(document(replicas=3)).spec.replicas == 3
    for wrong in ("some", 0, 1.5, True):
        with pytest.raises(SpecError, match=r"spec\.replicas"):
            parse_dataload(document(replicas=wrong))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"policy": "Cron"}, "spec.schedule: is missing"),
        ({"schedule": "0 3 * * *"}, "spec.schedule: needs policy Cron"),
        ({"policy": "Cron", "schedule": "0 3 * *"}, "spec.schedule: .*has 4 fields"),
        ({"policy": "Cron", "schedule": "61 3 * * *"}, "spec.schedule: minute"),
        ({"target": [{"path": "x"}]}, r"spec\.target\[0\]\.path"),
        ({"dataset": "a.b"}, "spec.dataset: .*DNS label"),
        ({"backofLimit": 1}, 'did you mean "backoffLimit"'),
    ],
)
def test_mistakes(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_dataload(document(**spec))


@PATIENT
@given(right(DataLoadSpec))
def test_what_is_written_is_read_back(spec: dict[str, Any]) -> None:
    found, problems = read_dataload({**document(), "spec": spec})
    assert all("spec.schedule" in str(problem) for problem in problems)
    assume(found is not None)
    assert found is not None
    assert parse_dataload(to_document(found)) == found


@PATIENT
@given(any_json(names_below(DataLoadSpec)))
def test_any_json_is_a_load_or_a_spec_error(raw: Any) -> None:
    for attempt in (raw, {**document(), "spec": raw}):
        with contextlib.suppress(SpecError):
            parse_dataload(attempt)
