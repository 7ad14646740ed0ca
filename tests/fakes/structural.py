"""What the API server does to an object with a structural schema, without CEL."""

from __future__ import annotations

import copy
import re
from typing import Any


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """`value` with the schema's defaults, and without nulls, as Kubernetes stores it."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found = {
            name: item
            for name, item in value.items()
            if item is not None or name not in properties or properties[name].get("nullable")
        }
        for name, inner in properties.items():
            if name not in found and "default" in inner:
                found[name] = copy.deepcopy(inner["default"])
        values = schema.get("additionalProperties")
        return {
            name: defaulted(properties.get(name) or values or {}, item)
            for name, item in found.items()
        }
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), item) for item in value]
    return value


def complaints(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Where `value` is not what the schema says."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        good = isinstance(value, (int, str)) and not isinstance(value, bool)
    else:
        good = _has_type(schema["type"], value)
    if not good:
        return [f"{path}: {value!r} is no {schema.get('type', 'int-or-string')}"]
    found = [f"{path}: {value!r}: {what}" for what in _limits(schema, value)]
    if isinstance(value, dict):
        properties, values = schema.get("properties", {}), schema.get("additionalProperties")
        found += [f"{path}: no {name}" for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            inner = properties.get(name, values)
            if inner is None:
                found.append(f"{path}.{name}: unknown")
            else:
                found += complaints(inner, item, f"{path}.{name}")
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += complaints(schema["items"], item, f"{path}[{i}]")
    return found


def _has_type(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    return isinstance(value, types[name])


def _limits(schema: dict[str, Any], value: Any) -> list[str]:
    found = []
    if isinstance(value, str):
        if "enum" in schema and value not in schema["enum"]:
            found.append("enum")
        if len(value) > schema.get("maxLength", len(value)):
            found.append("maxLength")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append("pattern")
    elif isinstance(value, (int, float)):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            found.append("bounds")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema["maxItems"]:
            found.append("items")
        keys = schema.get("x-kubernetes-list-map-keys")
        if keys and len({tuple(i.get(k) for k in keys) for i in value}) < len(value):
            found.append("duplicate")
    elif isinstance(value, dict) and len(value) > schema.get("maxProperties", len(value)):
        found.append("properties")
    return found
