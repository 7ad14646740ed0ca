"""The software in an image, as CycloneDX JSON on standard output. Standard library only.

    python sbom.py ROOT ENVIRONMENT

From what is installed, not from what was asked for: dpkg's list below ROOT and the Python
distributions in ENVIRONMENT. The same content gives the same bytes.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sys
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import quote

NAMESPACE = uuid.UUID("6f1f3c5e-6a52-5d0a-9a55-3c1f0f7c8a11")


def main(arguments: list[str]) -> int:
    """Print the document."""
    root, environment = map(Path, arguments)
    json.dump(document(root, environment), sys.stdout, indent=1, sort_keys=True)
    print()
    return 0


def document(root: Path, environment: Path) -> dict[str, object]:
    """The whole bill of materials."""
    components = [*python_components(environment), *debian_components(root)]
    components.sort(key=lambda component: str(component["purl"]))
    about = next((one for one in components if one["name"] == "cacheop"), {"name": "cacheop"})
    others = [one for one in components if one is not about]
    moment = dt.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), tz=dt.UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(components))}",
        "version": 1,
        "metadata": {
            "timestamp": moment.isoformat().replace("+00:00", "Z"),
            "component": {**about, "type": "container"},
        },
        "components": others,
    }


def python_components(environment: Path) -> list[dict[str, object]]:
    """What pip or uv installed there."""
    places = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    return [_python_component(one) for one in distributions(path=places)]


def _python_component(one: Distribution) -> dict[str, object]:
    name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
    found: dict[str, object] = {
        "type": "library",
        "name": name,
        "version": one.version,
        "purl": f"pkg:pypi/{name}@{quote(one.version)}",
    }
    told = one.metadata.json
    expression, free = told.get("license_expression"), told.get("license")
    if expression:
        found["licenses"] = [{"expression": expression}]
    elif free and len(free) < 80:  # some put the whole text there
        found["licenses"] = [{"license": {"name": free}}]
    return found


def debian_components(root: Path) -> list[dict[str, object]]:
    """What dpkg has installed there."""
    found: list[dict[str, object]] = []
    for record in (root / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            re.findall(r"^(Package|Version|Architecture|Status): (.*)$", record, re.MULTILINE)
        )
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
        found.append({"type": "library", "name": name, "version": version, "purl": purl})
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
