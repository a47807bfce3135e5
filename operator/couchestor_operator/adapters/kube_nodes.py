"""Nodes, as the Kubernetes API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api, kube_copy
from couchestor_operator.control import selector, storage_node
from couchestor_operator.resources import cluster_node

KIND: Final = kube_api.Kind(group="", version=cluster_node.VERSION, plural=cluster_node.PLURAL)


class KubeNodes:
    """Implements ``ports.node_directory.NodeDirectory``.

    Args:
        watched: Those at hand, of ``KIND``; somebody else keeps them up.
        wanted: Which of them stripe groups are made on.
    """

    def __init__(self, watched: kube_copy.KubeCopy, *, wanted: selector.Selector) -> None:
        self._watched = watched
        self._wanted = wanted

    async def nodes(self) -> Mapping[str, storage_node.StorageNode]:
        """See the port; as old as ``KubeCopy`` allows.

        Raises:
            KubernetesApiError: also where one cannot be read: it must not seem to be gone.
        """
        found: dict[str, storage_node.StorageNode] = {}
        for name, document in self._watched.at_hand().items():
            try:
                found[name] = cluster_node.node_of(document, wanted=self._wanted)
            except errors.KubernetesApiError as exc:
                raise errors.KubernetesApiError(f"node {name}: {exc.message}") from exc
        return found
