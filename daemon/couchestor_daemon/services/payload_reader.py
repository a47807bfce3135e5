"""Payloads that L2P entries lead to, verified: from any replica of the log, any shards of a stripe.

Neighbours are read together: in the log and in packed stripes what is moved lies side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import xxhash

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import stripe_reader
from couchestor_domain import errors, geometry, ids, units

RUN_BYTES_MAX: Final = units.MIB
"""How far apart the ends of what is read together may lie; a longer payload is read alone."""

Payload = memoryview | errors.CouchestorError
"""The bytes of an entry as stored, or why they cannot be had."""


async def read_journal(
    media: media_port.Media,
    zones: Sequence[ids.ZoneAddress],
    location: l2p_record.JournalLocation,
) -> memoryview:
    """A payload of the log from the first replica on which it verifies.

    Raises:
        InsufficientShardsError: it verifies on none.
    """
    start, end = _window(location, location)
    window = memoryview(bytearray(end - start))
    inside = location.offset_bytes - start
    payload = window[inside : inside + location.length_bytes]
    problems: list[str] = []
    for zone in zones:
        try:
            if not media.try_read(zone, start, window):
                await media.read(zone, start, window)
        except errors.DeviceError as exc:
            problems.append(str(exc))
            continue
        if xxhash.xxh3_64_intdigest(payload) == location.checksum:
            return payload
        problems.append(f"the replica on device {zone.device_id} does not verify")
    raise errors.InsufficientShardsError(
        f"no replica of log segment {location.segment_id} at {location.offset_bytes} can be "
        f"read: {'; '.join(problems)}",
        segment=location.segment_id,
        offset=location.offset_bytes,
    )


def members_of(reader: index_port.IndexReader, group_id: int) -> stripe_reader.GroupMembers:
    """How a group is coded and where its shards are now. Raises IndexCorruptError."""
    value = reader.get(media_records.group_key(group_id))
    if value is None:
        raise errors.IndexCorruptError(
            f"the index names stripe group {group_id}, which it does not list; "
            "run `couchestor recover`"
        )
    record = media_records.unpack(media_records.GroupRecord, value)
    return stripe_reader.GroupMembers(
        geometry.StripeGeometry(record.data_shards, record.parity_shards),
        record.codec_id,
        media_records.zone_addresses(record.members),
    )


def segment_zones(reader: index_port.IndexReader, segment_id: int) -> tuple[ids.ZoneAddress, ...]:
    """Where the replicas of a log segment are. Raises IndexCorruptError."""
    value = reader.get(media_records.segment_key(segment_id))
    if value is None:
        raise errors.IndexCorruptError(
            f"the index names log segment {segment_id}, which it does not list; "
            "run `couchestor recover`"
        )
    record = media_records.unpack(media_records.SegmentRecord, value)
    return media_records.zone_addresses(record.members)


def window_bytes(locations: Sequence[l2p_record.Location]) -> int:
    """Length of a window that every run of these locations fits in."""
    longest = max(location.stored_bytes for location in locations)
    return max(RUN_BYTES_MAX, longest + 2 * units.BLOCK_BYTES)


def run_length(locations: Sequence[l2p_record.Location], first: int, *, window_bytes: int) -> int:
    """How many locations from ``first`` on lie side by side, in one window."""
    start = locations[first]
    count = 1
    previous = start
    for location in locations[first + 1 :]:
        if not _follows(previous, location):
            break
        low, high = _window(start, location)
        if high - low > window_bytes:
            break
        previous = location
        count += 1
    return count


class PayloadReader:
    """Reads runs of entries; looks members up anew for each, because they move."""

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        stripes: stripe_reader.StripeReader,
    ) -> None:
        self._index = index
        self._media = media
        self._stripes = stripes

    async def read_run(
        self, locations: Sequence[l2p_record.Location], window: memoryview
    ) -> list[Payload]:
        """Payloads of a run (see ``run_length``) as they are stored, valid until ``window`` is used
        again.

        What does not verify where it is read with its neighbours is read alone, from every place.
        """
        if isinstance(locations[0], l2p_record.JournalLocation):
            found = await self._read_log(locations, window)
        else:
            found = await self._read_stripe(locations, window)
        return [
            payload if payload is not None else await self._read_alone(location)
            for location, payload in zip(locations, found, strict=True)
        ]

    async def _read_log(
        self, locations: Sequence[l2p_record.Location], window: memoryview
    ) -> list[memoryview | None]:
        start, end = _window(locations[0], locations[-1])
        if not await self._fill(locations[0], start, window[: end - start]):
            return [None] * len(locations)
        digest = xxhash.xxh3_64_intdigest
        found: list[memoryview | None] = []
        for location in locations:
            assert isinstance(location, l2p_record.JournalLocation), location
            inside = location.offset_bytes - start
            payload = window[inside : inside + location.length_bytes]
            found.append(payload if digest(payload) == location.checksum else None)
        return found

    async def _fill(self, location: l2p_record.Location, start: int, window: memoryview) -> bool:
        assert isinstance(location, l2p_record.JournalLocation), location
        try:
            with self._index.read() as reader:
                zones = segment_zones(reader, location.segment_id)
        except errors.IndexCorruptError:
            return False  # Said when it is read alone.
        for zone in zones:
            try:
                if not self._media.try_read(zone, start, window):
                    await self._media.read(zone, start, window)
            except errors.DeviceError:
                continue
            return True
        return False

    async def _read_stripe(
        self, locations: Sequence[l2p_record.Location], window: memoryview
    ) -> list[memoryview | None]:
        start, end = _window(locations[0], locations[-1])
        try:
            await self._read_range(locations[0], start, window[: end - start])
        except (errors.IndexCorruptError, errors.InsufficientShardsError):
            return [None] * len(locations)
        found: list[memoryview | None] = []
        for location in locations:
            low, high = _window(location, location)
            found.append(window[low - start : high - start])
        return found

    async def _read_range(
        self, location: l2p_record.Location, start_bytes: int, out: memoryview
    ) -> None:
        assert not isinstance(location, l2p_record.JournalLocation), location
        with self._index.read() as reader:
            members = members_of(reader, location.group_id)
        stripe = stripe_reader.StripeLocation(
            location.group_id,
            location.stripe_offset_bytes,
            location.chunk_bytes,
            location.data_bytes,
        )
        await self._stripes.read(stripe, members, start_bytes, len(out), out)

    async def _read_alone(self, location: l2p_record.Location) -> Payload:
        try:
            if isinstance(location, l2p_record.JournalLocation):
                with self._index.read() as reader:
                    zones = segment_zones(reader, location.segment_id)
                return await read_journal(self._media, zones, location)
            start, end = _window(location, location)
            out = memoryview(bytearray(end - start))
            await self._read_range(location, start, out)
            return out
        except (errors.IndexCorruptError, errors.InsufficientShardsError) as exc:
            return exc


def _follows(previous: l2p_record.Location, location: l2p_record.Location) -> bool:
    if isinstance(previous, l2p_record.JournalLocation):
        return (
            isinstance(location, l2p_record.JournalLocation)
            and location.segment_id == previous.segment_id
            and location.offset_bytes >= previous.offset_bytes + previous.length_bytes
        )
    return (
        not isinstance(location, l2p_record.JournalLocation)
        and location[:4] == previous[:4]
        and location.start_bytes >= previous.start_bytes + previous.stored_bytes
    )


def _window(first: l2p_record.Location, last: l2p_record.Location) -> tuple[int, int]:
    """What is read to have the payloads from ``first`` to ``last``: blocks of a zone, or bytes of
    a stripe's data."""
    if isinstance(first, l2p_record.JournalLocation):
        assert isinstance(last, l2p_record.JournalLocation), last
        return (
            units.align_down(first.offset_bytes, units.BLOCK_BYTES),
            units.align_up(last.offset_bytes + last.length_bytes, units.BLOCK_BYTES),
        )
    assert not isinstance(last, l2p_record.JournalLocation), last
    return first.start_bytes, last.start_bytes + last.stored_bytes
