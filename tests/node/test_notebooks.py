"""Every notebook runs from its first cell to its last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.node, pytest.mark.slow]
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # Its own place for what it keeps, so that the test does not depend on an earlier run.
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "i")}
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=environment)
    figures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert figures, "the notebook shows no plot"
