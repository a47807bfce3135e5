"""How the daemons of storage nodes are spoken to: the same way at each, but for its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from couchestor_domain import errors
from couchestor_domain.node_api import fields
from couchestor_operator.adapters import http_access


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(http_access.Access):
    """How to reach every node. Over TLS a node shows a certificate for its name in Kubernetes.

    Its URL says only by which scheme and port: the address of each node is known by itself.
    """

    SERVICE: ClassVar[str] = "the node API"
    EXAMPLE: ClassVar[str] = "https://nodes:9443"
    UNAVAILABLE: ClassVar[type[errors.ControlPlaneError]] = errors.NodeApiError

    deadline_seconds: float = 10.0
    answer_bytes_max: int = fields.BYTES_MAX
