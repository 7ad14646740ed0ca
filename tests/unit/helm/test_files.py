"""What of the chart can be checked without helm."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
import tomllib
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from cacheop.cli.generate import generate_rights

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/cacheop"


def test_what_is_generated_is_fresh():
    def texts(directory):
        return {path.name: path.read_text() for path in directory.glob("*.yaml")}

    assert texts(CHART / "files/crds") == texts(ROOT / "crds"), "./dev generate"
    assert texts(CHART / "files/rights") == generate_rights(), "./dev generate"


def test_chart_and_package_have_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def keys(values, schema, path=""):
    """(path, whether the schema has it) of every value."""
    schema = resolved(schema)
    for key, value in values.items():
        here = f"{path}{key}"
        below = schema.get("properties", {}).get(key)
        yield here, below is not None
        if isinstance(value, dict) and below and resolved(below).get("properties"):
            yield from keys(value, below, f"{here}.")


def resolved(schema):
    name = schema.get("$ref", "").rpartition("/")[2]
    return SCHEMA["$defs"][name] if name else schema


SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def test_the_schema_knows_exactly_the_values_that_there_are():
    assert [path for path, known in keys(VALUES, SCHEMA) if not known] == []

    def undocumented(schema, values, path=""):
        for key, below in resolved(schema).get("properties", {}).items():
            if key not in values:
                yield f"{path}{key}"
            elif isinstance(values[key], dict):
                yield from undocumented(below, values[key], f"{path}{key}.")

    extra = set(undocumented(SCHEMA, VALUES)) - {"global"}  # helm itself adds that one
    assert not extra


def test_every_value_is_used():
    files = [path for path in (CHART / "templates").rglob("*") if path.is_file()]
    templates = "".join(path.read_text() for path in files)
    words = set(re.findall(r"\w+", templates))
    assert [path for path, _ in keys(VALUES, SCHEMA) if path.rpartition(".")[2] not in words] == []


# -- the sample of `helm test` --------------------------------------------------------------------


@pytest.fixture
def sample():
    spec = importlib.util.spec_from_file_location("sample", CHART / "files/test/sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(sample, directory):
    for name in sample.SIZES:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.content(name))


def test_the_check_passes_what_is_right(sample, tmp_path):
    write(sample, tmp_path)
    assert sample.check(str(tmp_path)) == 0


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "add", "zeros"])
def test_the_check_finds_what_is_wrong(sample, tmp_path, harm, capsys):
    write(sample, tmp_path)
    large = tmp_path / "large.bin"
    body = large.read_bytes()
    match harm:
        case "flip":
            large.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        case "cut":
            large.write_bytes(body[:-1])
        case "zeros":
            large.write_bytes(bytes(len(body)))
        case "remove":
            large.unlink()
        case "add":
            (tmp_path / "more.bin").touch()
    assert sample.check(str(tmp_path)) == 1
    assert ("more.bin" if harm == "add" else "large.bin") in capsys.readouterr().err


@pytest.fixture
def served(sample):
    server = ThreadingHTTPServer(("127.0.0.1", 0), sample.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def get(url, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_the_server_has_ranges_and_conditions(sample, served):
    body = sample.content("small.bin")
    status, headers, got = get(f"{served}/small.bin")
    assert (status, got) == (200, body)
    assert get(f"{served}/small.bin", "HEAD")[1]["Content-Length"] == "100000"
    status, part, got = get(f"{served}/small.bin", Range="bytes=10-19", If_Match=headers["ETag"])
    assert (status, got, part["Content-Range"]) == (206, body[10:20], "bytes 10-19/100000")
    assert get(f"{served}/small.bin", Range="bytes=99990-")[2] == body[-10:]
    assert get(f"{served}/small.bin", If_Match='"another"')[0] == 412
    assert get(f"{served}/small.bin", Range="bytes=100000-")[0] == 416
    assert get(f"{served}/nothing")[0] == 404
    assert all(name in get(f"{served}/")[2].decode() for name in sample.SIZES)
