"""The PersistentVolumes behind which volumes stand, for managers that keep no marks themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Document = Mapping[str, Any]
"""A PersistentVolume as the Kubernetes API has it."""


class ClaimStore(Protocol):
    """Reads PersistentVolumes and writes over the very version that was read.

    Every method raises a ``TransientError`` (``KubernetesApiError``) where there was no answer.
    """

    def at_hand(self) -> Mapping[str, Document]:
        """All of them by name, of any age; not to be changed."""
        ...

    async def read(self, name: str) -> Document | None:
        """One, fresh: after every write that was answered before the call. None: no such."""
        ...

    async def replace(self, document: Document) -> None:
        """Write it over the version that it names.

        Raises:
            VersionConflictError: it is not of that version any more, or gone; nothing was done.
        """
        ...
