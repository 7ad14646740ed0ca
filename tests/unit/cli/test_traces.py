"""What an `up` that fails takes away again, and what not."""

from __future__ import annotations

import pytest

from cacheop.cli.traces import removed_on_failure


def make_and_fail(roots, mount=None):
    def attempt():
        with removed_on_failure(roots, mount):
            for directory in (*roots, *([mount] if mount else [])):
                directory.mkdir(parents=True, exist_ok=True)
            (roots[0] / "chunks").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()


def test_what_was_made_goes_with_its_parents(tmp_path):
    make_and_fail([tmp_path / "c" / f"node-{k}" / "local" for k in (0, 1)], tmp_path / "m" / "n")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path):
    root, mount = tmp_path / "c" / "local", tmp_path / "m"
    root.mkdir(parents=True)
    mount.mkdir()
    make_and_fail([root], mount)
    assert (root / "chunks").exists()
    assert mount.is_dir()


def test_what_somebody_else_put_beside_it_stays(tmp_path):
    (tmp_path / "c" / "b").parent.mkdir()
    make_and_fail([tmp_path / "c" / "a"])
    (tmp_path / "c" / "b").mkdir()
    make_and_fail([tmp_path / "c" / "a"])
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["b"]


def test_success_keeps_everything(tmp_path):
    with removed_on_failure([tmp_path / "c"], None):
        (tmp_path / "c").mkdir()
    assert (tmp_path / "c").is_dir()
