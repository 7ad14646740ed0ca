"""Conditions of a status, as every Kubernetes kind has them.

Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cacheop.api.model import Limits

COUNT = Limits(minimum=0)
"""Bytes, files and generations."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of the state; True is always the good side."""

    type: Annotated[str, Limits(max_length=64)]
    """Ready, Indexed, OriginReachable, Healthy, …"""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Limits(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """One word in CamelCase, for programs."""
    message: Annotated[str, Limits(max_length=4096)] = ""
    """What is so and what to do, for people."""
    last_transition_time: Annotated[str | None, Limits(max_length=64)] = None
    """When `status` changed last, RFC 3339."""
    observed_generation: Annotated[int | None, COUNT] = None
    """metadata.generation that this says something about."""


CONDITIONS = Limits(max_items=32, keys=("type",))
