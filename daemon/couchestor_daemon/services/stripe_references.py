"""What of the L2P leads to a stripe: whether it is worth repairing, and how much goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from couchestor_daemon.formats import l2p_record, media_records, packed_stripe
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import group_walk, repair_tools, stripe_reader, stripe_tables
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, events, geometry, ids, units

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
            total += entry.stored_bytes
    return total


async def live_bytes_exactly(
    tools: repair_tools.Tools,
    record: media_records.GroupRecord,
    found: group_walk.FoundStripe,
) -> int:
    """Bytes of a stripe that the L2P leads to; of a packed one whose table cannot be had, by
    looking at the whole map."""
    tables = await _tables(tools, record, [found])
    if tables is not None:
        with tools.index.read() as reader:
            return _counted(reader, [found], tables)
    total = 0
    async for offset, length_bytes in search(tools.index, record.group_id):
        if offset == found.location.stripe_offset_bytes:
            total += length_bytes
    return total


async def accounts_for_all(
    tools: repair_tools.Tools,
    record: media_records.GroupRecord,
    found: Sequence[group_walk.FoundStripe],
) -> bool:
    """Whether the L2P leads to nothing in a group but to these stripes; False when only a search
    through the whole map can tell.
    """
    tables = await _tables(tools, record, found)
    if tables is None:
        return False
    # Counted and compared in one snapshot: what is deleted meanwhile must not make up for what is
    # missing.
    with tools.index.read() as reader:
        return _counted(reader, found, tables) == liveness.group_bytes(reader, record.group_id)


async def _tables(
    tools: repair_tools.Tools,
    record: media_records.GroupRecord,
    found: Iterable[group_walk.FoundStripe],
) -> dict[int, stripe_tables.Table] | None:
    """The tables of the packed ones by stripe offset; None when one cannot be had."""
    stripes = stripe_reader.StripeReader(
        tools.media,
        codecs=tools.codecs,
        publisher=_Silence(),
        on_damage=_say_nothing,
        run_codec=tools.run_codec,
    )
    members = stripe_reader.GroupMembers(
        geometry.StripeGeometry(record.data_shards, record.parity_shards),
        record.codec_id,
        media_records.zone_addresses(record.members),
    )
    tables: dict[int, stripe_tables.Table] = {}
    for item in found:
        if item.extent_address != PACKED_ADDRESS:
            continue
        await tools.pace(units.BLOCK_BYTES)
        try:
            table = await stripe_tables.read(stripes, item.location, members)
        except errors.InsufficientShardsError:
            return None
        if table is None:
            return None
        tables[item.location.stripe_offset_bytes] = table
    return tables


def _counted(
    reader: index_port.IndexReader,
    found: Iterable[group_walk.FoundStripe],
    tables: Mapping[int, stripe_tables.Table],
) -> int:
    total = 0
    for item in found:
        table = tables.get(item.location.stripe_offset_bytes)
        if table is None:
            total += live_bytes(reader, item)
        else:
            entries = stripe_tables.live_entries(reader, table, item.location)
            total += sum(entry.location.stored_bytes for entry in entries)
    return total


class _Silence:
    """What is damaged is told by who looks for it."""

    def publish(self, event: events.DomainEvent) -> None:
        """Drop it."""


def _say_nothing(group_id: int, stripe_offset_bytes: int, shard_index: int, reason: str) -> None:
    """See ``_Silence``."""


async def search(index: index_port.IndexStore, group_id: int) -> AsyncIterator[tuple[int, int]]:
    """Every L2P entry that leads to a group, as stripe offset and stored bytes; found by looking at
    all entries there are.

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
                    found.append((entry.stripe_offset_bytes, entry.stored_bytes))
                start = key + b"\0"
                if looked_at == ENTRIES_PER_SLICE:
                    break
        for item in found:
            yield item
        if looked_at < ENTRIES_PER_SLICE:
            return
        await asyncio.sleep(0)
