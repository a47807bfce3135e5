"""What of the L2P leads to a stripe: whether it is worth repairing, and how much goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final

from couchestor_daemon.formats import l2p_record, media_records, packed_stripe
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import group_walk
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import ids

PACKED_ADDRESS: Final = packed_stripe.ADDRESS
ENTRIES_PER_SLICE: Final = 2048
"""Looked at in one go, with the event loop waiting."""


def live_bytes(reader: index_port.IndexReader, found: group_walk.FoundStripe) -> int:
    """Bytes of a stripe that the L2P leads to; of a packed one, those of its whole group."""
    location = found.location
    if found.extent_address == PACKED_ADDRESS:
        return liveness.group_bytes(reader, location.group_id)
    start = l2p_record.key(ids.ExtentAddress(found.extent_address))
    # An address from a place that only looks like a stripe may be any number.
    end = min(found.extent_address + location.data_bytes, PACKED_ADDRESS)
    stop = l2p_record.key(ids.ExtentAddress(end))
    total = 0
    for _, value in reader.scan(start, stop):
        entry = l2p_record.unpack(value)
        if not isinstance(entry, l2p_record.JournalLocation) and (
            entry.group_id,
            entry.stripe_offset_bytes,
        ) == (location.group_id, location.stripe_offset_bytes):
            total += entry.length_bytes
    return total


async def live_bytes_exactly(index: index_port.IndexStore, found: group_walk.FoundStripe) -> int:
    """Bytes of a stripe that the L2P leads to; of a packed one by looking at the whole map, for
    when its table cannot be had."""
    if found.extent_address != PACKED_ADDRESS:
        with index.read() as reader:
            return live_bytes(reader, found)
    total = 0
    async for offset, length_bytes in search(index, found.location.group_id):
        if offset == found.location.stripe_offset_bytes:
            total += length_bytes
    return total


def accounts_for_all(
    reader: index_port.IndexReader, group_id: int, found: Iterable[group_walk.FoundStripe]
) -> bool:
    """Whether the L2P leads to nothing in a group but to these stripes; False when only a search
    through the whole map can tell.
    """
    total = 0
    for item in found:
        if item.extent_address == PACKED_ADDRESS:
            return False
        total += live_bytes(reader, item)
    return total == liveness.group_bytes(reader, group_id)


async def search(index: index_port.IndexStore, group_id: int) -> AsyncIterator[tuple[int, int]]:
    """Every L2P entry that leads to a group, as stripe offset and length; found by looking at all
    entries there are.

    For what no stripe tells by itself. Entries that change meanwhile may be missed.
    """
    start, stop = media_records.table_range(l2p_record.TABLE)
    while True:
        looked_at = 0
        found: list[tuple[int, int]] = []
        with index.read() as reader:
            for key, value in reader.scan(start, stop):
                looked_at += 1
                entry = l2p_record.unpack(value)
                if not isinstance(entry, l2p_record.JournalLocation) and entry.group_id == group_id:
                    found.append((entry.stripe_offset_bytes, entry.length_bytes))
                start = key + b"\0"
                if looked_at == ENTRIES_PER_SLICE:
                    break
        for item in found:
            yield item
        if looked_at < ENTRIES_PER_SLICE:
            return
        await asyncio.sleep(0)
