from __future__ import annotations

import pytest

from cacheop.api.errors import UserError
from cacheop.client.url import Target, parse_head, split, strip


@pytest.mark.parametrize(
    ("head", "target"),
    [
        ("imagenet", Target("default", "imagenet", "")),
        ("imagenet.vision", Target("vision", "imagenet", "")),
        ("imagenet@0a1b", Target("default", "imagenet", "0a1b")),
        ("a-1.b-2@ff", Target("b-2", "a-1", "ff")),
    ],
)
def test_heads(head: str, target: Target) -> None:
    assert parse_head(head) == target


def test_namespace_of_heads_without_one() -> None:
    assert parse_head("x", "vision").namespace == "vision"
    assert parse_head("x.nlp", "vision").namespace == "nlp"


@pytest.mark.parametrize("head", ["", "A", "a_b", "a.b.c", "a@", "a@../x", "-a", "a" * 64, "a@V1"])
def test_what_is_not_a_head(head: str) -> None:
    with pytest.raises(UserError, match="is not dataset"):
        parse_head(head)


def test_paths() -> None:
    assert strip("cacheop://demo/a/b/") == "demo/a/b"
    assert strip("demo") == "demo"
    assert split("demo@1/a/b") == ("demo@1", "a/b")
    assert split("demo") == ("demo", "")
