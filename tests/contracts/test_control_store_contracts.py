"""The stores of the control plane in memory keep what those of Kubernetes have to keep, too."""

from __future__ import annotations

from typing import Any

import lease_store_contract
import memory_leases
import memory_policies
import memory_stripes
import policy_store_contract
import pytest
import refused_resources
import set_clock
import stripe_store_contract

from couchestor_domain import errors
from couchestor_operator.control import stripe_group
from couchestor_operator.ports import policy_store, stripe_store
from couchestor_operator.resources import field_types, policy_reading, storage_policy


class MemoryHarness:
    """Over the fake, through what the API would show."""

    name = "gold"

    def __init__(self) -> None:
        self._memory = memory_policies.MemoryPolicies()
        self.store: policy_store.PolicyStore = self._memory

    async def make(self, spec: dict[str, Any]) -> None:
        """Read as a document is."""
        document = {
            "apiVersion": field_types.API_VERSION,
            "kind": "StoragePolicy",
            "metadata": {"name": self.name, "creationTimestamp": "2023-11-14T22:13:20Z"},
            "spec": spec,
        }
        try:
            rule = policy_reading.policy_of(policy_reading.decode(document))
        except errors.InvalidPolicyError as exc:
            self._memory.put(self.name, None, refusal=exc.message)
        else:
            self._memory.put(self.name, rule)

    async def edit(self, spec: dict[str, Any]) -> None:
        """The same once more."""
        await self.make(spec)

    async def delete(self) -> None:
        """Being deleted."""
        self._memory.put(self.name, None)

    async def status(self) -> storage_policy.StoragePolicyStatus:
        """As kept."""
        return self._memory.status(self.name)

    async def shows(self, expected: bool) -> None:
        """Here they are of no age."""
        assert (self.name in await self.store.names()) is expected


@pytest.mark.parametrize(
    "check", policy_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_policies_in_memory(check: policy_store_contract.Check) -> None:
    await check(MemoryHarness())


@pytest.mark.parametrize(
    "check", lease_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_leases_in_memory(check: lease_store_contract.Check) -> None:
    await check(memory_leases.MemoryLeases())


class MemoryStripesHarness:
    """Over the fake, which holds every write to the rules of the schema."""

    def __init__(self) -> None:
        self._memory = memory_stripes.MemoryStripes(set_clock.SetClock(), is_strict=True)

    @property
    def store(self) -> stripe_store.StripeStore:
        """In memory."""
        return self._memory

    async def shows(self, group: stripe_group.StripeGroup) -> None:
        """Here they are of no age."""
        assert int(self._memory.group(group.name).version) >= int(group.version)

    async def shows_none(self, name: str) -> None:
        """Here they are of no age."""
        assert name not in self._memory.documents

    async def annotate(self, name: str, key: str, value: str) -> None:
        """Under a new version."""
        self._memory.annotate(name, key, value)

    async def delete(self, name: str) -> None:
        """Gone."""
        del self._memory.documents[name]

    async def make_others(self, name: str) -> None:
        """A document of theirs."""
        self._memory.documents[name] = {
            "metadata": {"name": name, "resourceVersion": "x"},
            "spec": refused_resources.STRIPE,
        }


@pytest.mark.parametrize(
    "check", stripe_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_stripes_in_memory(check: stripe_store_contract.Check) -> None:
    await check(MemoryStripesHarness())
