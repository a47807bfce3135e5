"""One shard on its medium, looked at again: is it damaged, and does that matter to anybody?"""

from __future__ import annotations

import enum
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    repair_tools,
    run_shards,
    stripe_references,
)
from couchestor_domain import errors, geometry, ids

ZONE_HEADER_OFFSET: Final = 0
"""Stripe offset under which a damaged zone header waits for repair: no stripe begins there."""


class Verdict(enum.Enum):
    """What became of a shard that was found wanting."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    IDLE = "nothing leads to it"
    AWAY = "on a device that is not in service"


class ShardCheck:
    """Reads shards a second time, so that nothing is rebuilt for a read that failed once."""

    def __init__(self, tools: repair_tools.Tools) -> None:
        self._tools = tools
        self._index = tools.index
        self._media = tools.media

    async def verdict(
        self, record: media_records.GroupRecord, *, offset_bytes: int, shard_index: int
    ) -> Verdict:
        """What is the matter with the shard at ``offset_bytes``; see ``ZONE_HEADER_OFFSET``.

        Of a parity shard that verifies, also whether it is the parity of its data.

        Raises:
            OverloadedError: the pool lends no memory now.
        """
        zone = media_records.zone_addresses(record.members)[shard_index]
        if not in_service(self._media, zone.device_id):
            return Verdict.AWAY
        if offset_bytes == ZONE_HEADER_OFFSET:
            try:
                formatted = await group_zones.is_formatted(
                    self._media, record, zone, position=shard_index
                )
            except errors.DeviceError:
                formatted = False
            return Verdict.WHOLE if formatted else Verdict.DAMAGED
        found = await group_walk.stripe_at(self._media, record, offset_bytes=offset_bytes)
        if found is None:
            # No member shows it, so only the map itself tells whether something is lost here.
            async for offset, _ in stripe_references.search(self._index, record.group_id):
                if offset == offset_bytes:
                    return Verdict.DAMAGED
            return Verdict.IDLE
        with self._index.read() as reader:
            if not stripe_references.live_bytes(reader, found):
                return Verdict.IDLE
        if await self._is_whole(record, found, shard_index):
            return Verdict.WHOLE
        is_missed = await stripe_references.live_bytes_exactly(self._tools, record, found)
        return Verdict.DAMAGED if is_missed else Verdict.IDLE

    async def _is_whole(
        self, record: media_records.GroupRecord, found: group_walk.FoundStripe, shard_index: int
    ) -> bool:
        shards_bytes = run_shards.length_bytes([found]) * len(record.members)
        scratch_bytes = run_shards.scratch_bytes([found], record)
        with self._tools.acquire(shards_bytes + scratch_bytes) as buffer:
            shards = run_shards.RunShards(
                self._tools, record, [found], memory=buffer.view[:shards_bytes], past_cache=True
            )
            await shards.read([shard_index])
            if shard_index not in shards.headers[0]:
                return False
            if shard_index < record.data_shards:
                return True
            await shards.read(range(record.data_shards))
            codec = self._tools.codecs(
                geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
            )
            scratch = buffer.view[shards_bytes : shards_bytes + scratch_bytes]
            wrong = await self._tools.run_codec(shards.parity_misfits, codec, scratch)
            return (0, shard_index) not in wrong


def in_service(media: media_port.Media, device_id: ids.DeviceId) -> bool:
    """Whether this process has a device."""
    try:
        media.device(device_id)
    except errors.DeviceError:
        return False
    return True
