"""Makes objects what they are to be; touches nothing that is somebody else's."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cacheop.operator import naming
from cacheop.operator.api import ApiError
from cacheop.operator.facts import fingerprint
from cacheop.operator.kinds import BY_KIND, VOLUME, Ref, ref_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cacheop.operator.api import Api
    from cacheop.operator.observe import Observer
    from cacheop.operator.plan import Plan

REFUSALS = (400, 403, 404, 409, 422)
"""Answers that are about this object; anything else is about the API server."""


class Applier:
    """Owns what it knows of objects it applied: what was wanted, and what came of it."""

    def __init__(self, api: Api, observer: Observer) -> None:
        self._api, self._observer = api, observer
        self._done: dict[Ref, tuple[str, str]] = {}

    async def apply(
        self, documents: Iterable[dict[str, Any]], uid: str
    ) -> tuple[dict[Ref, str], tuple[str, ...]]:
        """Apply what is not so already. (Names that are taken, whose; what was refused, why).

        Raises ApiError when the API server itself is in trouble.
        """
        taken: dict[Ref, str] = {}
        errors: list[str] = []
        for document in documents:
            ref = ref_of(document)
            try:
                whose = await self._apply(ref, document, uid)
            except ApiError as error:
                if error.status not in REFUSALS:
                    raise
                errors.append(f"{ref} cannot be made: {error.message}")
                continue
            if whose:
                taken[ref] = whose
        return taken, tuple(errors)

    async def _apply(self, ref: Ref, document: dict[str, Any], uid: str) -> str:
        """Whose the name is, when it is not ours to take."""
        wanted = _digest(document)
        child = self._observer.child(ref)
        if child is not None and child.dataset_uid == uid:
            if self._done.get(ref) == (wanted, child.fingerprint):
                return ""
        else:
            there = await self._api.get(BY_KIND[ref.kind], ref.namespace, ref.name)
            if there is not None and (whose := _foreign(there, uid)):
                return whose
        done = await self._api.apply(BY_KIND[ref.kind], document)
        self._done[ref] = (wanted, fingerprint(done))
        self._observer.learn(done)
        return ""

    async def remove(self, plan: Plan) -> None:
        """Delete what is not wanted any more; free volumes whose claim was deleted."""
        for ref in plan.remove:
            child = self._observer.child(ref)
            uid = child.uid if child is not None else ""
            await self._api.delete(BY_KIND[ref.kind], ref.namespace, ref.name, uid)
            self._done.pop(ref, None)
        for ref in plan.release:
            # Its claim is gone for good; without that uid the volume takes the new one.
            gone = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
            await self._api.merge(VOLUME, "", ref.name, gone)

    def forget(self, refs: Iterable[Ref]) -> None:
        """What belonged to a Dataset that is no more."""
        for ref in refs:
            self._done.pop(ref, None)


def _foreign(there: Mapping[str, Any], uid: str) -> str:
    """Whose an object is that is not of the Dataset `uid`; empty when it is."""
    metadata = there["metadata"]
    labels = metadata.get("labels") or {}
    owners = metadata.get("ownerReferences") or ()
    if any(owner.get("uid") == uid for owner in owners) or labels.get(naming.UID_LABEL) == uid:
        return ""
    old = labels.get(naming.DATASET_LABEL)
    if old and labels.get(naming.MANAGED_LABEL) == naming.FIELD_MANAGER:
        return f"of a deleted Dataset {old}, and still in use"
    return "there already and not of this Dataset"


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
