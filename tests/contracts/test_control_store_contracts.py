"""The stores of the control plane in memory keep what those of Kubernetes have to keep, too."""

from __future__ import annotations

from typing import Any

import lease_store_contract
import memory_leases
import memory_policies
import policy_store_contract
import pytest

from couchestor_domain import errors
from couchestor_operator.ports import policy_store
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
