"""Logical addresses for extents, leased from the index many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_domain import ids


def lease_addresses(length_bytes: int) -> Callable[[index_port.IndexWriter], int]:
    """An operation body that takes ``length_bytes`` of never used logical addresses."""

    def apply(txn: index_port.IndexWriter) -> int:
        value = txn.get(media_records.ADDRESS_KEY)
        first = 1 << 20 if value is None else int(media_records.U64.unpack(value)[0])
        txn.put(media_records.ADDRESS_KEY, media_records.U64.pack(first + length_bytes))
        return first

    return apply


class AddressLease:
    """Logical addresses this process may hand out, taken from the index ``length_bytes`` at a time.

    Args:
        submit: Commits an operation through the group commit.
    """

    def __init__(
        self,
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        *,
        length_bytes: int,
    ) -> None:
        self._submit = submit
        self._length_bytes = length_bytes
        self._next = 0
        self._end = 0
        self._renewing = asyncio.Lock()

    async def renew(self) -> None:
        """Take the next range of the node; what is left of the present one is never used.

        Raises:
            StoreFullError, StoreReadOnlyError: the log takes no commits now.
        """
        take = lease_addresses(self._length_bytes)
        operation = commit_log.Operation(apply=lambda txn, _: take(txn), uses_reserve=True)
        first = await self._submit(operation)
        assert isinstance(first, int), first
        self._next, self._end = first, first + self._length_bytes

    async def take(self, length_bytes: int) -> ids.ExtentAddress:
        """A fresh range.

        Raises:
            StoreFullError, StoreReadOnlyError: a new lease is needed and cannot be had.
        """
        assert length_bytes < self._length_bytes, length_bytes
        if self._next + length_bytes >= self._end:
            async with self._renewing:
                if self._next + length_bytes >= self._end:
                    await self.renew()
        address = self._next
        # An empty body still gets an address of its own.
        self._next = address + max(length_bytes, 1)
        return ids.ExtentAddress(address)
