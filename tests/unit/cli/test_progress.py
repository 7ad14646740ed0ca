"""The progress of several nodes as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheop.cli import progress


def test_shares_add_up_and_the_slowest_says_when():
    merged = progress.merge_loads(
        [
            {"phase": "Loading", "bytes": 1, "bytes_total": 4, "files": 0, "files_total": 2,
             "rate_bytes_per_second": 10, "eta_seconds": 5.0},
            {"phase": "Loading", "bytes": 2, "bytes_total": 6, "files": 1, "files_total": 3,
             "rate_bytes_per_second": 20, "eta_seconds": 9.0},
            {"phase": "Complete", "bytes": 5, "bytes_total": 5, "eta_seconds": None},
        ]
    )  # fmt: skip
    assert (merged["bytes"], merged["bytes_total"]) == (8, 15)
    assert (merged["files"], merged["files_total"]) == (1, 5)
    assert merged["rate_bytes_per_second"] == 30
    assert merged["eta_seconds"] == 9.0
    assert merged["phase"] == "Loading"
    words = progress.load_words(merged)
    assert words == "1 of 5 files, 30 B/s, 9s to go"
    assert progress.line(merged, words).startswith("53.3 %: 8 B of 15 B, 1 of 5")
    assert progress.line({}, "x") == "-: 0 B of 0 B, x"


def test_when_is_unknown_until_all_know():
    knows = {"phase": "Loading", "bytes": 1, "bytes_total": 4, "eta_seconds": 5.0}
    assert progress.merge_loads([knows, {}])["eta_seconds"] is None
    assert progress.merge_loads([knows, knows | {"eta_seconds": None}])["eta_seconds"] is None
    there = {"phase": "Loading", "bytes": 4, "bytes_total": 4, "eta_seconds": None}
    assert progress.merge_loads([knows, there])["eta_seconds"] == 5.0
    assert progress.merge_loads([{"phase": "Failed", "error": "lost"}])["eta_seconds"] == 0


@pytest.mark.parametrize(
    ("phases", "phase"),
    [
        (["Complete", "Complete"], "Complete"),
        (["Complete", None], "Loading"),
        (["Failed", "Loading"], "Loading"),
        (["Complete", "Failed", "Cancelled"], "Failed"),
        (["Complete", "Cancelled"], "Cancelled"),
        (["Complete", "Paused"], "Failed"),
        ([], "Failed"),
    ],
)
def test_complete_when_all_are(phases, phase):
    assert progress.merge_loads([{"phase": p} for p in phases])["phase"] == phase


def test_a_file_in_parts_of_two_nodes_fails_once():
    def node(*paths, more=0):
        failed = [{"path": path, "error": f"why {path}"} for path in paths]
        return {"phase": "Failed", "failed": failed, "failed_files": len(paths) + more}

    merged = progress.merge_loads([node("a", "b"), node("b", "c", more=7), {}])
    assert [f["path"] for f in merged["failed"]] == ["a", "b", "c"]
    assert merged["failed_files"] == 10


counts = st.integers(0, 1 << 50)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "phase": st.sampled_from(["Loading", "Complete", "Failed", "Cancelled"]),
                "bytes": counts,
                "bytes_total": counts,
                "files": counts,
                "eta_seconds": st.none() | st.floats(0, 1e9),
                "failed": st.lists(
                    st.fixed_dictionaries({"path": st.sampled_from("abc"), "error": st.text()})
                ),
            }
        )
    )
)
def test_the_order_of_the_nodes_does_not_matter(events):
    def plain(merged):
        failed = sorted(f["path"] for f in merged["failed"])
        return merged | {"failed": failed}

    once, again = progress.merge_loads(events), progress.merge_loads(events[::-1])
    assert plain(once) == plain(again)
    assert len({f["path"] for f in once["failed"]}) == len(once["failed"])
    assert (once["phase"] == "Complete") == (
        bool(events) and all(e["phase"] == "Complete" for e in events)
    )


def test_words_of_a_drain():
    event = {"chunks": 3, "chunks_total": 12, "bytes": 1024, "bytes_total": 4096}
    words = progress.drain_words(event)
    assert progress.line(event, words) == "25.0 %: 1.0 KiB of 4.0 KiB, 3 of 12 chunks handed over"
