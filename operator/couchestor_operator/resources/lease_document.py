"""Leases of ``coordination.k8s.io/v1``, from and to what an election uses.

A version is the Lease's uid and its resourceVersion. The second alone guards nothing when the Lease
is gone: the API server makes a Lease anew that is written to and is not there, whatever version the
write names, and so a holder of long ago would have it back. A uid it refuses.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import election
from couchestor_operator.resources import field_types

GROUP: Final = "coordination.k8s.io"
VERSION: Final = "v1"
PLURAL: Final = "leases"

_VERSION_SEPARATOR: Final = "/"


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who holds it; every part may be missing, or not have been written by us."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: field_types.Moment | None = None
    renew_time: field_types.Moment | None = None
    lease_transitions: int | None = None


class LeaseDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it."""

    metadata: field_types.ObjectMeta
    spec: LeaseSpec = LeaseSpec()


def lease_of(document: Mapping[str, Any], *, lease_seconds: int) -> election.Lease:
    """What a document says.

    Args:
        lease_seconds: Of a Lease that does not say how long it is.

    Raises:
        KubernetesApiError: the document is none of a Lease.
    """
    try:
        read = msgspec.convert(document, LeaseDocument)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(f"the Lease cannot be read: {exc}") from exc
    spec, metadata = read.spec, read.metadata
    return election.Lease(
        holder=spec.holder_identity or "",
        lease_seconds=spec.lease_duration_seconds or lease_seconds,
        acquired_seconds=0.0 if spec.acquire_time is None else spec.acquire_time.timestamp(),
        renewed_seconds=0.0 if spec.renew_time is None else spec.renew_time.timestamp(),
        transitions_count=spec.lease_transitions or 0,
        version=_VERSION_SEPARATOR.join((metadata.uid or "", metadata.resource_version or "")),
    )


def document_of(lease: election.Lease, *, name: str, namespace: str) -> dict[str, Any]:
    """The document of a Lease, to be made or to be written over the version that it names."""
    metadata = {"name": name, "namespace": namespace}
    if lease.version:
        uid, _, resource_version = lease.version.partition(_VERSION_SEPARATOR)
        assert uid, lease.version
        assert resource_version, lease.version
        metadata |= {"uid": uid, "resourceVersion": resource_version}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": lease.lease_seconds,
            "acquireTime": micro_time(lease.acquired_seconds),
            "renewTime": micro_time(lease.renewed_seconds),
            "leaseTransitions": lease.transitions_count,
        },
    }


def micro_time(seconds: float) -> str:
    """A time as the API's MicroTime: always with six digits after the point."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
