from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def listed(root: Path, environment: Path) -> str:
    done = subprocess.run(
        [sys.executable, "release/sbom.py", str(root), str(environment)],
        check=True,
        capture_output=True,
        text=True,
        env={"SOURCE_DATE_EPOCH": "315532800"},
    )
    return done.stdout


def test_it_lists_what_is_installed_and_nothing_else(tmp_path: Path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    for name, version in (("Some_Package", "1.2"), ("cacheop", "0.1.0")):
        place = tmp_path / f"lib/python3.11/site-packages/{name}-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
        )
    said = listed(tmp_path, tmp_path)
    found = json.loads(said)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["timestamp"] == "1980-01-01T00:00:00Z"
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/cacheop@0.1.0"
    assert {one["purl"] for one in found["components"]} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64",
        "pkg:pypi/some-package@1.2",
    }
    assert listed(tmp_path, tmp_path) == said
