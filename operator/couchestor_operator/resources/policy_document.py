"""StoragePolicy documents of the API: what is read of one, and the same with another status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.ports import policy_store
from couchestor_operator.resources import (
    field_types,
    migration_status,
    policy_reading,
    storage_policy,
)

Document = Mapping[str, Any]
"""What the API sends and takes, as JSON means it."""

FINALIZER: Final = f"{field_types.GROUP}/migrations"
"""Keeps a policy that is being deleted until its migrations have ended."""


def state_of(document: Document) -> policy_store.PolicyState:
    """What is decided on. A policy that cannot be used still has its migrations.

    Raises:
        InvalidPolicyError: what stands in its status cannot be read, so that nobody knows which
            migrations it has.
    """
    metadata = metadata_of(document)
    status = status_of(document)
    rule = refusal = None
    is_being_deleted = metadata.deletion_timestamp is not None
    if not is_being_deleted:
        try:
            spec_only = {name: part for name, part in document.items() if name != "status"}
            rule = policy_reading.policy_of(policy_reading.decode(spec_only))
        except errors.InvalidPolicyError as exc:
            refusal = exc.message
    return policy_store.PolicyState(
        name=metadata.name,
        version=metadata.resource_version or "",
        policy=rule,
        records=tuple(map(migration_status.record_of, status.migrations)),
        history=tuple(map(migration_status.past_of, status.migration_history)),
        refusal=refusal,
        is_being_deleted=is_being_deleted,
    )


def metadata_of(document: Document) -> field_types.ObjectMeta:
    """Name, version, generation and the like."""
    return msgspec.convert(document["metadata"], field_types.ObjectMeta)


def status_of(document: Document) -> storage_policy.StoragePolicyStatus:
    """Its status, as it is before anything was written if there is none.

    Raises:
        InvalidPolicyError: it does not fit its schema.
    """
    try:
        return msgspec.convert(document.get("status") or {}, storage_policy.StoragePolicyStatus)
    except msgspec.ValidationError as exc:
        name = document["metadata"].get("name", "")
        raise errors.InvalidPolicyError(
            f"the status of StoragePolicy {name} cannot be read, and is left as it is: {exc}. "
            "Correct it, or take it away if no migration is under way",
            field="status",
        ) from exc


def with_status(document: Document, status: storage_policy.StoragePolicyStatus) -> Document:
    """The document to be written to the subresource of statuses."""
    return {**document, "status": _given(msgspec.to_builtins(status))}


def has_finalizer(document: Document) -> bool:
    """Whether a deletion would wait."""
    return FINALIZER in metadata_of(document).finalizers


def with_finalizer(document: Document, *, wanted: bool) -> Document:
    """The document with or without ours; those of others stay."""
    others = [each for each in metadata_of(document).finalizers if each != FINALIZER]
    finalizers = [*others, FINALIZER] if wanted else others
    return {**document, "metadata": {**document["metadata"], "finalizers": finalizers}}


def _given(value: Any) -> Any:
    """What is absent has no value, rather than none."""
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_given(part) for part in value]
    return value
