"""PersistentVolumes in memory, kept as the API server would keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from couchestor_domain import errors
from couchestor_operator.ports import claim_store
from couchestor_operator.resources import persistent_volume


class MemoryClaims:
    """Implements ``ports.claim_store.ClaimStore``."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._versions_count = 0

    def put(self, volume_name: str, *, storage_class: str = "mayastor") -> None:
        """Have the claim of a volume."""
        name = persistent_volume.name_of(volume_name)
        self._write({"metadata": {"name": name}, "spec": {"storageClassName": storage_class}})

    def delete(self, volume_name: str) -> None:
        """Have it be gone."""
        del self._kept[persistent_volume.name_of(volume_name)]

    def at_hand(self) -> Mapping[str, claim_store.Document]:
        """All of them."""
        return self._kept

    async def read(self, name: str) -> claim_store.Document | None:
        """One as it is."""
        return self._kept.get(name)

    async def replace(self, document: claim_store.Document) -> None:
        """Over its version."""
        name = document["metadata"]["name"]
        kept = self._kept.get(name)
        if (
            kept is None
            or kept["metadata"]["resourceVersion"] != (document["metadata"]["resourceVersion"])
        ):
            raise errors.VersionConflictError(f"{name} is of another version: read it again")
        self._write(document)

    def _write(self, document: Mapping[str, Any]) -> None:
        self._versions_count += 1
        metadata = {**document["metadata"], "resourceVersion": str(self._versions_count)}
        self._kept[metadata["name"]] = {**document, "metadata": metadata}
