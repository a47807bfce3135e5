"""Policies as StoragePolicy resources, their migrations in their statuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api, kube_copy
from couchestor_operator.control import migration, standing
from couchestor_operator.ports import policy_store
from couchestor_operator.resources import (
    definition,
    field_types,
    migration_status,
    policy_document,
    policy_status,
    storage_policy,
)

KIND: Final = kube_api.Kind(
    group=field_types.GROUP,
    version=field_types.VERSION,
    plural=definition.STORAGE_POLICY.plural,
)

_Status = storage_policy.StoragePolicyStatus


class KubePolicies:
    """Implements ``ports.policy_store.PolicyStore``.

    A write reads the policy, compares its version with that of the state it was decided on, and
    replaces the status under that very version, which the API server compares once more.

    Args:
        watched: The policies at hand, of ``KIND``; somebody else keeps them up.
    """

    def __init__(self, api: kube_api.KubeApi, watched: kube_copy.KubeCopy) -> None:
        self._api = api
        self._watched = watched

    async def names(self) -> Sequence[str]:
        """See the port; as old as ``KubeCopy`` allows.

        Raises:
            KubernetesApiError: they are not known, or have been known for too long.
        """
        return sorted(self._watched.at_hand())

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """See the port."""
        document = await self._api.get(KIND, policy_name)
        return None if document is None else _state_of(document)

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """See the port. The policy is kept from being deleted first: a write of its own."""
        document = await self._at(state)
        status = migration_status.begun(_status_of(document), record)
        if not policy_document.has_finalizer(document):
            kept = policy_document.with_finalizer(document, wanted=True)
            document = await self._api.replace(KIND, kept)
        await self._api.replace(KIND, policy_document.with_status(document, status), part="status")

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """See the port."""
        await self._write(state, lambda status: migration_status.advanced(status, record))

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """See the port."""
        await self._write(state, lambda status: migration_status.ended(status, record, end=end))

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """See the port."""
        document = await self._at(state)
        generation = policy_document.metadata_of(document).generation
        status = policy_status.reported(_status_of(document), told, generation=generation)
        await self._api.replace(KIND, policy_document.with_status(document, status), part="status")

    async def release(self, state: policy_store.PolicyState) -> None:
        """See the port."""
        document = await self._at(state)
        if policy_document.has_finalizer(document):
            freed = policy_document.with_finalizer(document, wanted=False)
            await self._api.replace(KIND, freed)

    async def _write(
        self, state: policy_store.PolicyState, change: Callable[[_Status], _Status]
    ) -> None:
        document = await self._at(state)
        status = change(_status_of(document))
        await self._api.replace(KIND, policy_document.with_status(document, status), part="status")

    async def _at(self, state: policy_store.PolicyState) -> kube_api.Document:
        document = await self._api.get(KIND, state.name)
        version = None if document is None else document["metadata"]["resourceVersion"]
        if document is None or version != state.version:
            raise errors.VersionConflictError(
                f"policy {state.name} is not of version {state.version} any more: read it again",
                policy=state.name,
            )
        return document


def _state_of(document: kube_api.Document) -> policy_store.PolicyState:
    try:
        return policy_document.state_of(document)
    except errors.InvalidPolicyError as exc:
        raise errors.KubernetesApiError(exc.message) from exc


def _status_of(document: kube_api.Document) -> storage_policy.StoragePolicyStatus:
    try:
        return policy_document.status_of(document)
    except errors.InvalidPolicyError as exc:
        raise errors.KubernetesApiError(exc.message) from exc
