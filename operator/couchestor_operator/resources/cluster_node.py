"""Nodes of Kubernetes, as far as assignment asks about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import selector, storage_node
from couchestor_operator.resources import field_types

VERSION: Final = "v1"
PLURAL: Final = "nodes"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
"""Taint by which people say that a node is dead. Source: Kubernetes, Non-graceful node shutdown."""
ADDRESS_TYPE: Final = "InternalIP"
READY: Final = "Ready"


class Taint(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps pods away."""

    key: str


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What people and controllers set."""

    taints: list[Taint] = msgspec.field(default_factory=list)


class NodeAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One of its addresses."""

    type: str
    address: str


class NodeCondition(msgspec.Struct, frozen=True, kw_only=True):
    """What the kubelet or, for it, Kubernetes says."""

    type: str
    status: str


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How it is."""

    addresses: list[NodeAddress] = msgspec.field(default_factory=list)
    conditions: list[NodeCondition] = msgspec.field(default_factory=list)


class ClusterNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node."""

    metadata: field_types.ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


def node_of(document: Mapping[str, Any], *, wanted: selector.Selector) -> storage_node.StorageNode:
    """The node that a document describes.

    Args:
        wanted: Which nodes stripe groups are made on.

    Raises:
        KubernetesApiError: the document is none of a Node.
    """
    try:
        read = msgspec.convert(document, ClusterNode)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(f"a Node cannot be read: {exc}") from exc
    addresses = [each.address for each in read.status.addresses if each.type == ADDRESS_TYPE]
    return storage_node.StorageNode(
        name=read.metadata.name,
        address=addresses[0] if addresses else "",
        zone=read.metadata.labels.get(ZONE_LABEL, ""),
        ready=any(each.type == READY and each.status == "True" for each in read.status.conditions),
        declared_lost=any(taint.key == OUT_OF_SERVICE for taint in read.spec.taints),
        selected=wanted.matches(read.metadata.labels),
    )
