"""PersistentVolumes, as the Kubernetes API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_operator.adapters import kube_api, kube_copy
from couchestor_operator.resources import persistent_volume

KIND: Final = kube_api.Kind(
    group="", version=persistent_volume.VERSION, plural=persistent_volume.PLURAL
)


class KubeClaims:
    """Implements ``ports.claim_store.ClaimStore``.

    Args:
        watched: Those at hand, of ``KIND``; somebody else keeps them up.
    """

    def __init__(self, api: kube_api.KubeApi, watched: kube_copy.KubeCopy) -> None:
        self._api = api
        self._watched = watched

    def at_hand(self) -> Mapping[str, kube_api.Document]:
        """See the port; as old as ``KubeCopy`` allows."""
        return self._watched.at_hand()

    async def read(self, name: str) -> kube_api.Document | None:
        """See the port."""
        return await self._api.get(KIND, name)

    async def replace(self, document: kube_api.Document) -> None:
        """See the port."""
        await self._api.replace(KIND, document)
