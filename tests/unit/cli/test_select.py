"""Which Dataset a NAME means."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheop.api.errors import NotFoundError, UserError, WorkerUnavailable
from cacheop.cli.select import parse_name, pick, pick_path
from cacheop.local import RunRecord


def record(namespace, name):
    return RunRecord(namespace, name, "", (), "", 0.0, Path("/run"))


DEMO, TEAM = record("default", "demo"), record("team", "demo")
TRAIN = record("demo", "train")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("demo", ("", "demo")),
        ("team/demo", ("team", "demo")),
        ("demo.team", ("team", "demo")),
        ("cacheop://demo.team/", ("team", "demo")),
    ],
)
def test_names(text, parts):
    assert parse_name(text) == parts


@pytest.mark.parametrize("text", ["", "a/b/c", "a.b.c", "/", "a/b.c"])
def test_what_is_no_name(text):
    with pytest.raises(UserError, match="not the name"):
        parse_name(text)


def test_a_namespace_twice_must_agree():
    assert parse_name("team/demo", "team") == ("team", "demo")
    with pytest.raises(UserError, match="but -n says other"):
        parse_name("team/demo", "other")


def test_pick():
    assert pick([DEMO], "") is DEMO
    assert pick([DEMO, TEAM], "demo.team") is TEAM
    assert pick([DEMO, TEAM], "demo", "team") is TEAM
    assert pick([DEMO, TEAM], "", "team") is TEAM
    with pytest.raises(UserError, match="default/demo, team/demo"):
        pick([DEMO, TEAM], "demo")
    with pytest.raises(WorkerUnavailable, match="cacheop up"):
        pick([], "demo")
    with pytest.raises(NotFoundError, match="Here runs default/demo"):
        pick([DEMO], "other")
    with pytest.raises(NotFoundError, match="no Dataset in namespace x"):
        pick([DEMO], "", "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (DEMO, "", "")),
        ("/a/b", (DEMO, "", "a/b")),
        ("demo/train/x", (DEMO, "", "train/x")),
        ("demo@0011/x", (DEMO, "0011", "x")),
        ("default/demo@0011/x/y/", (DEMO, "0011", "x/y")),
        ("cacheop://demo.default/x", (DEMO, "", "x")),
    ],
)
def test_paths(text, expected):
    assert pick_path([DEMO], text) == expected


def test_a_dataset_of_that_name_comes_before_a_namespace():
    assert pick_path([DEMO, TRAIN], "demo/train") == (DEMO, "", "train")
    assert pick_path([TRAIN], "demo/train") == (TRAIN, "", "")
    with pytest.raises(NotFoundError):
        pick_path([DEMO], "other/train")
