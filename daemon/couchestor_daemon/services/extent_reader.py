"""Bytes of an object from the log or from stripes, verified on the way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Final, Generic, TypeVar

import xxhash

from couchestor_daemon import buffers
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import stripe_reader, uninterrupted
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, geometry, ids, units

CACHED_RECORDS_MAX: Final = 4096
PIECE_BYTES_MAX: Final = units.MIB
LOCATED_EXTENTS_MAX: Final = 16
LOCATED_BYTES_MAX: Final = 64 * units.MIB
"""Objects up to these are located as a whole when they are looked up."""

Places = Sequence[Sequence[l2p.Resolved]]
"""The resolved entries of each extent of an object."""

V = TypeVar("V")


class _Bounded(Generic[V]):
    """A small cache of immutable records."""

    def __init__(self, limit_count: int) -> None:
        self._limit_count = limit_count
        self._held: OrderedDict[int, V] = OrderedDict()

    def get(self, key: int) -> V | None:
        return self._held.get(key)

    def put(self, key: int, value: V) -> None:
        self._held[key] = value
        if len(self._held) > self._limit_count:
            self._held.popitem(last=False)


class ExtentReader:
    """Resolves extents through the L2P and reads what they point at."""

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        stripes: stripe_reader.StripeReader,
        pool: buffers.BufferPool,
    ) -> None:
        self._index = index
        self._media = media
        self._stripes = stripes
        self._pool = pool
        self._segments: _Bounded[tuple[ids.ZoneAddress, ...]] = _Bounded(CACHED_RECORDS_MAX)
        self._groups: _Bounded[stripe_reader.GroupMembers] = _Bounded(CACHED_RECORDS_MAX)

    @staticmethod
    def locate(reader: index_port.IndexReader, extents: Sequence[ids.Extent]) -> Places | None:
        """Where all bytes of an object are in this snapshot, to read it even after its version is
        replaced; None for one so long that this would cost too much for a small range of it.

        The places hold good while no zone is reset; what was overwritten there does not verify.
        """
        if (
            len(extents) > LOCATED_EXTENTS_MAX
            or sum(extent.length_bytes for extent in extents) > LOCATED_BYTES_MAX
        ):
            return None
        return tuple(
            l2p.resolve(reader, extent, start_bytes=0, length_bytes=extent.length_bytes)
            for extent in extents
        )

    async def pieces(
        self,
        extents: Sequence[ids.Extent],
        *,
        start_bytes: int,
        length_bytes: int,
        places: Places | None = None,
    ) -> AsyncIterator[memoryview]:
        """The range as verified pieces, each at most ``PIECE_BYTES_MAX``, in order.

        A piece is valid until the next one is asked for: its memory is lent by the pool.

        Args:
            places: What ``locate`` gave for these extents; looked up in the index if None.

        Raises:
            IndexCorruptError, InsufficientShardsError, DeviceCorruptError.
        """
        position = 0
        end = start_bytes + length_bytes
        for index, extent in enumerate(extents):
            first = max(start_bytes - position, 0)
            last = min(end - position, extent.length_bytes)
            position += extent.length_bytes
            if first >= last:
                continue
            wanted = {"start_bytes": first, "length_bytes": last - first}
            if places is not None:
                parts = l2p.narrowed(places[index], extent, **wanted)
            else:
                with self._index.read() as reader:
                    parts = l2p.resolve(reader, extent, **wanted)
            for part in parts:
                _, location, inside, length = part
                while length > 0:
                    step = min(length, PIECE_BYTES_MAX)
                    if isinstance(location, l2p_record.JournalLocation):
                        payload = await self._read_payload(location)
                        yield payload[inside : inside + step]
                    else:
                        # Without memory of its own to go back to, a piece that the pool cannot
                        # lend is still read: reads must not fail because writes are waiting.
                        lent = self._pool.try_acquire(step)
                        out = lent.view[:step] if lent else memoryview(bytearray(step))
                        try:
                            await uninterrupted.to_the_end(self._read_stripe(location, inside, out))
                            yield out
                        finally:
                            if lent:
                                out.release()
                                lent.release()
                    inside += step
                    length -= step

    async def _read_stripe(
        self, location: l2p_record.StripeLocation, inside_bytes: int, out: memoryview
    ) -> None:
        await self._stripes.read(
            stripe_reader.StripeLocation(
                location.group_id,
                location.stripe_offset_bytes,
                location.chunk_bytes,
                location.data_bytes,
            ),
            self._members(location.group_id),
            location.start_bytes + inside_bytes,
            len(out),
            out,
        )

    async def _read_payload(self, location: l2p_record.JournalLocation) -> memoryview:
        start = units.align_down(location.offset_bytes, units.BLOCK_BYTES)
        end = units.align_up(location.offset_bytes + location.length_bytes, units.BLOCK_BYTES)
        window = memoryview(bytearray(end - start))
        inside = location.offset_bytes - start
        payload = window[inside : inside + location.length_bytes]
        problems: list[str] = []
        for zone in self._segment_zones(location.segment_id):
            try:
                if not self._media.try_read(zone, start, window):
                    await self._media.read(zone, start, window)
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

    def _segment_zones(self, segment_id: int) -> tuple[ids.ZoneAddress, ...]:
        found = self._segments.get(segment_id)
        if found is None:
            with self._index.read() as reader:
                value = reader.get(media_records.segment_key(segment_id))
            if value is None:
                raise errors.IndexCorruptError(
                    f"the index names log segment {segment_id}, which it does not list; "
                    "run `couchestor recover`"
                )
            record = media_records.unpack(media_records.SegmentRecord, value)
            found = media_records.zone_addresses(record.members)
            self._segments.put(segment_id, found)
        return found

    def _members(self, group_id: int) -> stripe_reader.GroupMembers:
        found = self._groups.get(group_id)
        if found is None:
            with self._index.read() as reader:
                value = reader.get(media_records.group_key(group_id))
            if value is None:
                raise errors.IndexCorruptError(
                    f"the index names stripe group {group_id}, which it does not list; "
                    "run `couchestor recover`"
                )
            record = media_records.unpack(media_records.GroupRecord, value)
            found = stripe_reader.GroupMembers(
                geometry.StripeGeometry(record.data_shards, record.parity_shards),
                record.codec_id,
                media_records.zone_addresses(record.members),
            )
            self._groups.put(group_id, found)
        return found
