"""ECStripes in memory, kept as the API server would keep them: as documents with versions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import admission

from couchestor_domain import errors
from couchestor_operator.control import ec_policy, stripe_group
from couchestor_operator.ports import clock
from couchestor_operator.resources import definition, stripe_document


class MemoryStripes:
    """Implements ``ports.stripe_store.StripeStore``.

    Args:
        is_strict: Whether every write is held to the rules of the schema, which takes some ms.
    """

    def __init__(self, time: clock.Clock, *, is_strict: bool = False) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        """What was done to which."""
        self._time = time
        self._is_strict = is_strict
        self._versions_count = 0

    async def every(self) -> Sequence[stripe_group.StripeGroup]:
        """All of them, of no age."""
        found = (stripe_document.group_of(each) for each in self.documents.values())
        return [group for group in found if group is not None]

    async def is_there(self, name: str) -> bool:
        """Whether it is."""
        return name in self.documents

    async def make(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """A document more."""
        if group.name in self.documents:
            raise errors.VersionConflictError(f"there is an ECStripe {group.name}")
        return self._put("make", group.name, dict(stripe_document.document_of(group)), None)

    async def move(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """A document with other places."""
        old = self._at(group)
        assert group.generation > old["spec"]["generation"], group
        return self._put("move", group.name, dict(stripe_document.moved(old, group)), old)

    async def tell(
        self, group: stripe_group.StripeGroup, told: stripe_group.Told
    ) -> stripe_group.StripeGroup:
        """A document with another status."""
        old = self._at(group)
        now_seconds = self._time.now_seconds()
        new = stripe_document.with_told(old, told, now_seconds=now_seconds)
        return self._put("tell", group.name, dict(new), old)

    def group(self, name: str) -> stripe_group.StripeGroup:
        """One of them."""
        found = stripe_document.group_of(self.documents[name])
        assert found is not None
        return found

    def annotate(self, name: str, key: str, value: str) -> None:
        """People write an annotation."""
        new = copy.deepcopy(self.documents[name])
        new["metadata"]["annotations"][key] = value
        self._put("annotate", name, new, self.documents[name])

    def _at(self, group: stripe_group.StripeGroup) -> dict[str, Any]:
        found = self.documents.get(group.name)
        if found is None or found["metadata"]["resourceVersion"] != group.version:
            raise errors.VersionConflictError(
                f"stripe group {group.name} is not of version {group.version} any more"
            )
        return found

    def _put(
        self, what: str, name: str, new: dict[str, Any], old: dict[str, Any] | None
    ) -> stripe_group.StripeGroup:
        if self._is_strict:
            complaints = admission.complaints(definition.EC_STRIPE, new, old=old)
            assert complaints == []
        self._versions_count += 1
        kept = copy.deepcopy(new)
        kept["metadata"]["resourceVersion"] = str(self._versions_count)
        self.documents[name] = kept
        self.writes.append((what, name))
        return self.group(name)


class MemoryEcPolicies:
    """Implements ``ports.ec_policies.EcPolicies``."""

    def __init__(self) -> None:
        self.policies: dict[str, ec_policy.EcPolicy] = {}

    async def read(self, name: str) -> ec_policy.EcPolicy:
        """One of them."""
        if name not in self.policies:
            raise errors.EcPolicyNotFoundError(f"there is no ErasureCodingPolicy {name}")
        return self.policies[name]
