"""Which nodes there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from couchestor_operator.control import storage_node


class NodeDirectory(Protocol):
    """Knows every node of the cluster."""

    async def nodes(self) -> Mapping[str, storage_node.StorageNode]:
        """All of them by name, also those that are not selected.

        A few minutes old at most: a node that is not among them has not been there lately.

        Raises:
            TransientError: (``KubernetesApiError``) they are not known, or have been for too long.
        """
        ...
