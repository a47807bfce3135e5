"""Where the Lease of an election stands."""

from __future__ import annotations

from typing import Protocol

from couchestor_operator.control import election


class LeaseStore(Protocol):
    """Reads and writes one Lease.

    Every method raises a ``TransientError`` (``KubernetesApiError``) where there was no answer: a
    write may have been accepted then, or may yet be, if the version is still the one it names.
    """

    async def read(self) -> election.Lease | None:
        """The Lease, fresh: after every write that was answered before the call."""
        ...

    async def write(self, lease: election.Lease) -> election.Lease:
        """Write it over the version it names, or make it where that is empty.

        Returns:
            The same with its new version.

        Raises:
            VersionConflictError: it is not of that version, is gone, or is there already.
        """
        ...
