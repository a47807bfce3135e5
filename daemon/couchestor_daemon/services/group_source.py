"""Live entries of a stripe group, found by walking its stripes.

The shards of a stripe name the address of its first byte, or that a table at the start of its data
names what it holds. An entry counts only if the L2P leads to just that place now.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from couchestor_daemon.formats import l2p_record, media_records, packed_stripe
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    group_walk,
    payload_reader,
    stripe_reader,
    stripe_tables,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids, units

logger = logging.getLogger(__name__)

RunBlocking = Callable[..., Awaitable[object]]
Pace = Callable[[int], Awaitable[None]]


class GroupSource:
    """One walk through a group. Memory: the table of one stripe.

    Args:
        run_blocking: Runs calls that block on a pool.
        pace: Awaited with a number of bytes before as many are read.
    """

    def __init__(
        self,
        record: media_records.GroupRecord,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        stripes: stripe_reader.StripeReader,
        run_blocking: RunBlocking,
        pace: Pace,
    ) -> None:
        self._record = record
        self._index = index
        self._media = media
        self._stripes = stripes
        self._run_blocking = run_blocking
        self._pace = pace

    async def entries(self) -> AsyncIterator[list[l2p.Entry]]:
        """Live entries of one stripe after the other, in the order of their places in it; no list
        is empty."""
        zones = media_records.zone_addresses(self._record.members)
        end = await self._run_blocking(group_walk.end_bytes, self._media, zones)
        assert isinstance(end, int), end
        async for found in group_walk.stripes(self._media, self._record, end_bytes=end):
            await self._pace(2 * units.BLOCK_BYTES)
            if found.extent_address == packed_stripe.ADDRESS:
                entries = await self._of_table(found.location)
            else:
                entries = self._of_range(found)
            if entries:
                yield entries

    def _of_range(self, found: group_walk.FoundStripe) -> list[l2p.Entry]:
        low = l2p_record.key(ids.ExtentAddress(found.extent_address))
        high = l2p_record.key(
            ids.ExtentAddress(
                min(found.extent_address + found.location.data_bytes, packed_stripe.ADDRESS)
            )
        )
        with self._index.read() as reader:
            entries = [
                l2p.Entry(l2p_record.address_of(key), l2p_record.unpack(value))
                for key, value in reader.scan(low, high)
            ]
        return [
            entry for entry in entries if stripe_tables.leads_to(entry.location, found.location)
        ]

    async def _of_table(self, stripe: stripe_reader.StripeLocation) -> list[l2p.Entry]:
        with self._index.read() as reader:
            if reader.get(media_records.group_key(stripe.group_id)) is None:
                return []  # Emptied and released since the walk began.
            members = payload_reader.members_of(reader, stripe.group_id)
        try:
            table = await stripe_tables.read(self._stripes, stripe, members)
        except errors.InsufficientShardsError as exc:
            logger.error("what a stripe holds cannot be told: %s", exc)
            return []
        if table is None:
            logger.error(
                "the table of stripe %d of group %d does not verify",
                stripe.stripe_offset_bytes,
                stripe.group_id,
            )
            return []
        with self._index.read() as reader:
            return stripe_tables.live_entries(reader, table, stripe)
