"""Makes objects what they are to be; touches nothing that is somebody else's."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
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

log = logging.getLogger("cacheop.operator")

REFUSALS = (400, 403, 404, 409, 422)
"""Answers that are about this object; anything else is about the API server."""


class Applier:
    """Owns what it knows of objects it applied: what was wanted, and what came of it."""

    def __init__(self, api: Api, observer: Observer) -> None:
        self._api, self._observer = api, observer
        self._done: dict[str, dict[Ref, tuple[str, str]]] = defaultdict(dict)
        """By the Dataset's uid."""

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
            if self._done[uid].get(ref) == (wanted, child.fingerprint):
                return ""
        else:
            there = await self._api.get(BY_KIND[ref.kind], ref.namespace, ref.name)
            if there is not None and (whose := _foreign(there, uid)):
                return whose
        done = await self._api.apply(BY_KIND[ref.kind], document)
        self._done[uid][ref] = (wanted, fingerprint(done))
        self._observer.learn(done)
        return ""

    async def remove(self, plan: Plan) -> None:
        """Delete what is not wanted any more; bring volumes and claims together again.

        What the API server refuses is logged and tried again in the next pass: a finalizer must
        not wait for it for ever.
        """
        for ref in plan.remove:
            child = self._observer.child(ref)
            uid = child.uid if child is not None else ""
            try:
                await self._api.delete(BY_KIND[ref.kind], ref.namespace, ref.name, uid)
            except ApiError as error:
                _pass_over(error, f"{ref} cannot be removed")
        for ref, uid in plan.rebind:
            claim = {"uid": uid or None, "resourceVersion": None}
            try:
                await self._api.merge(VOLUME, "", ref.name, {"spec": {"claimRef": claim}})
            except ApiError as error:
                _pass_over(error, f"{ref} cannot be bound again")

    def forget(self, uid: str) -> None:
        """A Dataset that is no more."""
        self._done.pop(uid, None)


def _pass_over(error: ApiError, what: str) -> None:
    if error.status not in REFUSALS:
        raise error
    log.warning("%s: %s", what, error.message)


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
