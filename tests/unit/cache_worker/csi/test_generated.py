"""The Python of the .proto files is what the compiler makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[4] / "cache_worker" / "csi"


def test_generated_files_are_fresh(tmp_path):
    protos = sorted(path.name for path in SOURCE.glob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE}"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *protos),
        ],
        check=True,
    )
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in SOURCE.glob("*_pb2.py*")}
    assert fresh == there, "run ./dev generate"
