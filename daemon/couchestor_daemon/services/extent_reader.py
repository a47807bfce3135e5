"""Bytes of an object from the log or from stripes, verified on the way.

A read looks its places up in one snapshot and then uses them without the index, so it goes on when
its version is replaced meanwhile. It trusts them for a while only: background work moves bytes and
resets the zones they were in, but not before twice that time (docs/adr/0006). Older places are
looked up again; those of a version that is gone are used as they are, and what does not verify then
is no damage.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from couchestor_daemon import buffers
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import clock as clock_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    compression,
    payload_reader,
    places_in_use,
    stripe_reader,
    uninterrupted,
    zone_grace,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, geometry, ids, units

CACHED_RECORDS_MAX: Final = 4096
PIECE_BYTES_MAX: Final = units.MIB
LOCATED_EXTENTS_MAX: Final = 16
LOCATED_BYTES_MAX: Final = 64 * units.MIB
"""Objects up to these are located as a whole when they are looked up."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Places(NamedTuple):
    """Where extents were at one moment."""

    extents: Sequence[Sequence[l2p.Resolved]]
    """The resolved entries of each extent asked for."""
    segments: dict[int, tuple[ids.ZoneAddress, ...]]
    groups: dict[int, stripe_reader.GroupMembers]
    """Zones of the segments and groups named in ``extents``, from the same snapshot: the members
    of a group change when a shard is rebuilt."""
    looked_up_seconds: float
    in_use: places_in_use.Use | None = None
    """Keeps zones from being reset early for as long as somebody holds it."""


class _Bounded(Generic[K, V]):
    """A small cache of immutable records."""

    def __init__(self, limit_count: int) -> None:
        self._limit_count = limit_count
        self._held: OrderedDict[K, V] = OrderedDict()
        self.get = self._held.get

    def put(self, key: K, value: V) -> None:
        self._held[key] = value
        if len(self._held) > self._limit_count:
            self._held.popitem(last=False)


class ExtentReader:
    """Resolves extents through the L2P and reads what they point at.

    Args:
        places_kept_seconds: How long looked-up places are used; zones must be left alone for
            longer than that after nothing refers to them.
        in_use: Where lookups are counted for as long as reads go by them.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        stripes: stripe_reader.StripeReader,
        pool: buffers.BufferPool,
        clock: clock_port.MonotonicClock,
        places_kept_seconds: float = zone_grace.PLACES_KEPT_SECONDS,
        in_use: places_in_use.PlacesInUse | None = None,
    ) -> None:
        self._index = index
        self._media = media
        self._stripes = stripes
        self._pool = pool
        self._now = clock.monotonic_seconds
        self._places_kept_seconds = places_kept_seconds
        self._in_use = in_use
        # By id: the members of a segment never change.
        self._segments: _Bounded[int, tuple[ids.ZoneAddress, ...]] = _Bounded(CACHED_RECORDS_MAX)
        # By the record itself: a changed one is another key.
        self._groups: _Bounded[bytes, stripe_reader.GroupMembers] = _Bounded(CACHED_RECORDS_MAX)

    def locate(
        self, reader: index_port.IndexReader, extents: Sequence[ids.Extent]
    ) -> Places | None:
        """Where all bytes of an object are in this snapshot, to read it even after its version is
        replaced; None for one so long that this would cost too much for a small range of it.
        """
        if (
            len(extents) > LOCATED_EXTENTS_MAX
            or sum(extent.length_bytes for extent in extents) > LOCATED_BYTES_MAX
        ):
            return None
        return self._places(
            reader,
            [
                l2p.resolve(reader, extent, start_bytes=0, length_bytes=extent.length_bytes)
                for extent in extents
            ],
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
            IndexCorruptError, InsufficientShardsError, DeviceCorruptError, DecompressionError.
            VersionGoneError: the version is no longer stored, and neither are its bytes.
        """
        position = 0
        end = start_bytes + length_bytes
        for index, extent in enumerate(extents):
            first = max(start_bytes - position, 0)
            last = min(end - position, extent.length_bytes)
            position += extent.length_bytes
            if first >= last:
                continue
            if places is None:
                held = self._look_up(extent, first, last)
                entries = held.extents[0]
            else:
                held = places
                entries = places.extents[index]
            parts: list[l2p.Resolved] = []
            while first < last:
                if self._now() - held.looked_up_seconds > self._places_kept_seconds:
                    held, entries = self._renewed(held, entries, extent, first, last)
                    parts = []
                if not parts:
                    parts = l2p.narrowed(
                        entries, extent, start_bytes=first, length_bytes=last - first
                    )
                address, location, inside, length = parts[0]
                step = min(length, PIECE_BYTES_MAX)
                lent = None
                if not isinstance(location, l2p_record.StripeLocation):
                    payload = await self._read_payload(location, held, address)
                    found = payload is not None
                    out = (
                        payload[inside : inside + step] if payload is not None else memoryview(b"")
                    )
                else:
                    # Without memory of its own to go back to, a piece that the pool cannot lend is
                    # still read: reads must not fail because writes are waiting.
                    lent = self._pool.try_acquire(step)
                    out = lent.view[:step] if lent else memoryview(bytearray(step))
                try:
                    if isinstance(location, l2p_record.StripeLocation):
                        found = await uninterrupted.to_the_end(
                            self._read_stripe(location, held, address, inside, out)
                        )
                    if found:
                        yield out
                finally:
                    if lent:
                        out.release()
                        lent.release()
                if not found:
                    held = self._elsewhere(extent, first, last)
                    entries, parts = held.extents[0], []
                    continue
                first += step
                if step == length:
                    del parts[0]
                else:
                    parts[0] = (address, location, inside + step, length - step)

    # -- places ---------------------------------------------------------------------------------

    def _places(
        self, reader: index_port.IndexReader, extents: Sequence[Sequence[l2p.Resolved]]
    ) -> Places:
        segments: dict[int, tuple[ids.ZoneAddress, ...]] = {}
        groups: dict[int, stripe_reader.GroupMembers] = {}
        for resolved in extents:
            for entry in resolved:
                location = entry[1]
                if isinstance(location, l2p_record.JournalLocation):
                    segment_id = location.segment_id
                    segments[segment_id] = self._segments.get(segment_id) or self._segment_zones(
                        reader, segment_id
                    )
                elif location.group_id not in groups:
                    groups[location.group_id] = self._members(reader, location.group_id)
        now = self._now()
        use = self._in_use.begin(now) if self._in_use else None
        return Places(extents, segments, groups, now, use)

    def _look_up(self, extent: ids.Extent, first: int, last: int) -> Places:
        with self._index.read() as reader:
            resolved = l2p.resolve(reader, extent, start_bytes=first, length_bytes=last - first)
            return self._places(reader, (resolved,))

    def _renewed(
        self,
        held: Places,
        entries: Sequence[l2p.Resolved],
        extent: ids.Extent,
        first: int,
        last: int,
    ) -> tuple[Places, Sequence[l2p.Resolved]]:
        """The places of what is left, as they are now; the old ones when the version is gone."""
        try:
            found = self._look_up(extent, first, last)
        except errors.IndexCorruptError:
            return held._replace(looked_up_seconds=self._now()), entries
        return found, found.extents[0]

    def _elsewhere(self, extent: ids.Extent, first: int, last: int) -> Places:
        """The places of what is no longer where it was."""
        try:
            return self._look_up(extent, first, last)
        except errors.IndexCorruptError as exc:
            raise errors.VersionGoneError(
                "the version was replaced or deleted while it was read, and its space has been "
                "given to other data; read the present one",
                extent=extent.address,
            ) from exc

    def _is_named(
        self, address: ids.ExtentAddress, location: l2p_record.Location, held: Places
    ) -> bool:
        """Whether the index leads to just this place now, on the same zones."""
        with self._index.read() as reader:
            if reader.get(l2p_record.key(address)) != l2p_record.pack(location):
                return False
            if isinstance(location, l2p_record.JournalLocation):
                return True
            members = self._members(reader, location.group_id)
            return members == held.groups[location.group_id]

    def _segment_zones(
        self, reader: index_port.IndexReader, segment_id: int
    ) -> tuple[ids.ZoneAddress, ...]:
        found = payload_reader.segment_zones(reader, segment_id)
        self._segments.put(segment_id, found)
        return found

    def _members(self, reader: index_port.IndexReader, group_id: int) -> stripe_reader.GroupMembers:
        value = reader.get(media_records.group_key(group_id))
        if value is None:
            raise errors.IndexCorruptError(
                f"the index names stripe group {group_id}, which it does not list; "
                "run `couchestor recover`"
            )
        found = self._groups.get(value)
        if found is None:
            record = media_records.unpack(media_records.GroupRecord, value)
            found = stripe_reader.GroupMembers(
                geometry.StripeGeometry(record.data_shards, record.parity_shards),
                record.codec_id,
                media_records.zone_addresses(record.members),
            )
            self._groups.put(value, found)
        return found

    # -- bytes ----------------------------------------------------------------------------------

    async def _read_stripe(
        self,
        location: l2p_record.StripeLocation | l2p_record.Lz4Location,
        held: Places,
        address: ids.ExtentAddress,
        inside_bytes: int,
        out: memoryview,
    ) -> bool:
        """Fill ``out``; False when the bytes are not there because they are elsewhere now."""
        is_named = functools.partial(self._is_named, address, location, held)
        try:
            await self._stripes.read(
                stripe_reader.StripeLocation(
                    location.group_id,
                    location.stripe_offset_bytes,
                    location.chunk_bytes,
                    location.data_bytes,
                ),
                held.groups[location.group_id],
                location.start_bytes + inside_bytes,
                len(out),
                out,
                is_named=is_named,
            )
        except errors.InsufficientShardsError:
            if is_named():
                raise
            return False
        return True

    async def _read_payload(
        self,
        location: l2p_record.JournalLocation | l2p_record.Lz4Location,
        held: Places,
        address: ids.ExtentAddress,
    ) -> memoryview | None:
        """A whole payload; None when it is not there because it is elsewhere now."""
        if isinstance(location, l2p_record.Lz4Location):
            block = memoryview(bytearray(location.stored_bytes))
            if not await self._read_stripe(location, held, address, 0, block):
                return None
            return compression.decompressed(block, length_bytes=location.length_bytes)
        zones = held.segments[location.segment_id]
        try:
            return await payload_reader.read_journal(self._media, zones, location)
        except errors.InsufficientShardsError:
            if self._is_named(address, location, held):
                raise
            return None
