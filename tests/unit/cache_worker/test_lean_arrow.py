"""The index child's pyarrow looks for pandas once and does not find it; nobody else is deceived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_pyarrow_leaves_pandas_alone_and_others_still_have_it() -> None:
    code = """
import sys
from cache_worker import lean_arrow
lean_arrow.import_early().join(60)
import numpy, pyarrow
assert "cache_worker.manifest" in sys.modules
assert pyarrow.array(numpy.arange(3)).to_pylist() == [0, 1, 2]
assert pyarrow.scalar(0).as_py() == 0
assert "pandas" not in sys.modules
assert not [f for f in sys.meta_path if type(f).__module__ == "cache_worker.lean_arrow"]
import pandas
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
