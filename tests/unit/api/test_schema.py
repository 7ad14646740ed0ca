from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings

from cacheop.api.dataload import DataLoadSpec, read_dataload
from cacheop.api.dataset import DatasetSpec, parse_dataset, read_dataset
from cacheop.api.dataset_status import CacheStates, DatasetStatus
from cacheop.api.parse import write
from cacheop.api.schema import crds
from cacheop.cli.generate import describe, generate
from cacheop.cli.generate import main as generate_main
from tests.fakes.documents import right
from tests.fakes.structural import complaints, defaulted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
CRDS = crds(describe)
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def schema_of(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = CRDS[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{path}.{name}")


def test_the_files_are_those_the_models_describe(tmp_path: Path) -> None:
    assert generate_main([str(tmp_path)]) == 0
    there = {path.name: path.read_text() for path in (ROOT / "crds").iterdir()}
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert there == fresh, "run `python -m cacheop.cli.generate crds`"


@pytest.mark.parametrize("name", CRDS)
def test_schemas_are_structural_and_bounded(name: str) -> None:
    for path, node in nodes(schema_of(name)):
        if path in (".metadata", ".apiVersion", ".kind"):
            continue
        assert not {"$ref", "anyOf", "oneOf", "allOf"} & set(node), path
        if node.get("x-kubernetes-preserve-unknown-fields"):
            assert "type" not in node, path
            continue
        if node.get("x-kubernetes-int-or-string"):
            assert node["pattern"], path
            continue
        kind = node["type"]
        if kind == "string":
            assert "maxLength" in node or "enum" in node, path
        if kind == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node, path
        if "additionalProperties" in node:
            assert node["maxProperties"], path
        re.compile(node.get("pattern", ""))
        assert "(?" not in node.get("pattern", ""), "RE2 has no look-around"


@pytest.mark.parametrize("name", CRDS)
def test_every_field_is_described(name: str) -> None:
    bare = [
        path
        for path, node in nodes(schema_of(name))
        if re.match(r"\.(spec|status)\b", path)
        and not path.endswith((".items", ".additionalProperties", ".valueFrom", ".secretKeyRef"))
        and not node.get("description")
    ]
    assert bare == []


@pytest.mark.parametrize("name", CRDS)
def test_defaults_are_right_themselves(name: str) -> None:
    for path, node in nodes(schema_of(name)):
        if "default" in node:
            assert complaints(node, defaulted(node, node["default"])) == [], path
            # The API server checks the rules on a list before it fills its entries.
            if node.get("type") == "array":
                assert defaulted(node, node["default"]) == node["default"], path


@pytest.mark.parametrize("name", CRDS)
def test_every_rule_has_a_message(name: str) -> None:
    for _, node in nodes(schema_of(name)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert set(rule) == {"rule", "message"}
            assert "\n" not in rule["message"]


def test_columns_point_at_fields() -> None:
    for name, crd in CRDS.items():
        properties = schema_of(name)["properties"]
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]:
            first, *rest = re.sub(r"\[.*?\]", "", column["jsonPath"]).strip(".").split(".")
            if first == "metadata":
                continue
            node = properties[first]
            for part in rest:
                node = node["properties"][part] if "properties" in node else node["items"][
                    "properties"
                ][part]  # fmt: skip
            assert node["type"] == column["type"], column


@PATIENT
@given(right(DatasetSpec))
def test_defaults_of_the_schema_are_those_of_the_model(spec: dict[str, Any]) -> None:
    raw = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "demo"},
        "spec": spec,
    }
    found, _ = read_dataset(raw)
    assume(found is not None)
    schema = schema_of("datasets.yaml")
    stored = {**raw, "spec": defaulted(schema["properties"]["spec"], spec)}
    assert complaints(schema["properties"]["spec"], stored["spec"]) == []
    assert parse_dataset(stored) == found


@PATIENT
@given(right(DataLoadSpec))
def test_the_same_for_dataloads(spec: dict[str, Any]) -> None:
    raw = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "demo"},
        "spec": spec,
    }
    found, _ = read_dataload(raw)
    assume(found is not None)
    schema = schema_of("dataloads.yaml")["properties"]["spec"]
    stored = defaulted(schema, spec)
    assert complaints(schema, stored) == []
    assert read_dataload({**raw, "spec": stored})[0] == found


def test_a_status_fits_its_schema() -> None:
    status = DatasetStatus(
        phase="Ready",
        file_num=3,
        ufs_total="1Gi",
        cache_states=CacheStates(cached_percentage="99.0%", origin_ratio="1.00"),
    )
    assert complaints(schema_of("datasets.yaml")["properties"]["status"], write(status)) == []


def test_the_yaml_has_no_anchors() -> None:
    for text in generate().values():
        assert not re.search(r"[:-] [&*]\w", text)
        assert yaml.safe_load(text)
