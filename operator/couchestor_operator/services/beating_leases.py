"""The Lease of an election, asking for which shows that the election goes on."""

from __future__ import annotations

from couchestor_operator.control import election
from couchestor_operator.ports import lease_store
from couchestor_operator.services import heartbeats


class BeatingLeases:
    """A ``LeaseStore`` that beats whenever it is asked, whatever comes of it."""

    def __init__(self, inner: lease_store.LeaseStore, beat: heartbeats.Beat) -> None:
        self._inner = inner
        self._beat = beat

    async def read(self) -> election.Lease | None:
        """As the inner one."""
        self._beat()
        return await self._inner.read()

    async def write(self, lease: election.Lease) -> election.Lease:
        """As the inner one."""
        self._beat()
        return await self._inner.write(lease)
