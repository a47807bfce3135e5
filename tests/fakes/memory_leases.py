"""A Lease in memory, kept as the API server would keep it."""

from __future__ import annotations

import dataclasses

from couchestor_domain import errors
from couchestor_operator.control import election


class MemoryLeases:
    """Implements ``ports.lease_store.LeaseStore``."""

    def __init__(self) -> None:
        self.lease: election.Lease | None = None
        self._versions_count = 0

    async def read(self) -> election.Lease | None:
        """As it is."""
        return self.lease

    async def write(self, lease: election.Lease) -> election.Lease:
        """Over the version named."""
        version = "" if self.lease is None else self.lease.version
        if lease.version != version:
            raise errors.VersionConflictError("the lease is of another version: read it again")
        self._versions_count += 1
        self.lease = dataclasses.replace(lease, version=str(self._versions_count))
        return self.lease

    def delete(self) -> None:
        """Somebody takes it away."""
        self.lease = None
