"""DiskPools of Mayastor, as far as a choice of pools needs them.

They are namespaced, and their fields are written with underscores. Read as the versions v1beta2 and
v1beta3 of ``openebs.io`` have them: ``cr_state`` says what became of the request for a pool,
``pool_status`` how the pool itself is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import pool
from couchestor_operator.resources import field_types

GROUP: Final = "openebs.io"
VERSIONS: Final = ("v1beta3", "v1beta2")
PLURAL: Final = "diskpools"

CREATED: Final = "Created"
ONLINE: Final = "Online"


class DiskPoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pool is."""

    node: str


class DiskPoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool is; a name that newer versions may add makes it one that takes nothing."""

    cr_state: str = ""
    pool_status: str | None = None
    available: int = 0


class DiskPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of one node."""

    metadata: field_types.ObjectMeta
    spec: DiskPoolSpec
    status: DiskPoolStatus | None = None


def pool_of(document: Mapping[str, Any]) -> pool.Pool:
    """The pool that a document describes. One that is being made or taken away is not online.

    Raises:
        KubernetesApiError: the document is none of a DiskPool.
    """
    try:
        read = msgspec.convert(document, DiskPool)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(
            f"a DiskPool cannot be read: {exc}. Versions {', '.join(VERSIONS)} are known"
        ) from exc
    status = read.status or DiskPoolStatus()
    return pool.Pool(
        name=read.metadata.name,
        node=read.spec.node,
        online=(
            status.cr_state == CREATED
            and status.pool_status == ONLINE
            and read.metadata.deletion_timestamp is None
        ),
        available_bytes=max(0, status.available),
        labels=read.metadata.labels,
    )
