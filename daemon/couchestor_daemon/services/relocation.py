"""Moving live bytes to new stripes: what destage, reclaim and draining a device are made of.

    line                                            after a crash there
    read the bytes of the entries, verified         nothing has changed
    write a stripe of them, k + m shards durably    a stripe that nothing refers to
    read all k + m shards back, verified            the same
    one commit switches the entries                 they are at the new place, or all at the old

An entry that was overwritten, deleted or moved meanwhile is not switched, and its bytes in the new
stripe are dead from the start. See docs/adr/0006.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from couchestor_daemon import buffers
from couchestor_daemon.formats import l2p_record, packed_stripe, shard
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    compression,
    payload_reader,
    stripe_assembly,
    stripe_groups,
    stripe_reader,
    uninterrupted,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, event_publisher, events, geometry, ids

logger = logging.getLogger(__name__)

STRIPES_MAX: Final = 4
"""Moved at once: a stripe waits for its devices four times, and for a commit."""
MEMORY_PER_STRIPE: Final = 3
"""Times its data bytes."""
ATTEMPTS_MAX: Final = 4
RETRY_SECONDS: Final = 0.5
"""Before the second attempt at a stripe; doubled before each further one."""
ENTRIES_PER_STRIPE_MAX: Final = 1024
"""Bounds the commit of a stripe: workers wait for the write lock meanwhile."""

Submit = Callable[[commit_log.Operation], Awaitable[object]]
Pace = Callable[[int], Awaitable[None]]
RunCodec = Callable[..., Awaitable[Any]]


@dataclass(slots=True, kw_only=True)
class Moved:
    """What became of the entries given."""

    taken_count: int
    """How many, from the first on, were dealt with; the rest is for the next call."""
    switched_count: int = 0
    switched_bytes: int = 0
    stripe_bytes: int = 0
    """Data bytes of the stripe written; 0: none was."""
    unreadable: list[l2p.Entry] = field(default_factory=list)
    """Left where they are: their bytes do not verify."""

    def add(self, other: Moved) -> None:
        """Count what became of further entries."""
        self.taken_count += other.taken_count
        self.switched_count += other.switched_count
        self.switched_bytes += other.switched_bytes
        self.stripe_bytes += other.stripe_bytes
        self.unreadable += other.unreadable


@dataclass(slots=True, eq=False)
class _Packed:
    """The data of a stripe, and where in it each entry lies."""

    data: memoryview
    address: ids.ExtentAddress
    """For the headers of the shards."""
    parts: list[tuple[l2p.Entry, packed_stripe.Entry]]
    started_at: float


class Relocation:
    """Moves entries, a few stripes at a time. On the event loop of the maintenance process.

    Memory for each stripe, all of it of ``pool``: its data, and either what is read at once or the
    stripe as it lies on media.

    Args:
        groups: Of this process alone.
        stripes: Reads, and verifies what was written.
        stripe_bytes: Data bytes of a stripe; one longer entry makes a longer stripe.
        memory_bytes: Of ``pool``, that may be used: it bounds how many stripes are moved at once.
        squeeze: Decides what is compressed.
        run_codec: Runs work for the processor on the codec pool.
        pace: Awaited with a number of bytes before as many are read or written.
    """

    def __init__(
        self,
        *,
        groups: stripe_groups.StripeGroups,
        index: index_port.IndexStore,
        payloads: payload_reader.PayloadReader,
        stripes: stripe_reader.StripeReader,
        pool: buffers.BufferPool,
        stripe_bytes: int,
        memory_bytes: int = 0,
        squeeze: compression.Compression,
        run_codec: RunCodec,
        submit: Submit,
        pace: Pace,
        publisher: event_publisher.EventPublisher,
    ) -> None:
        self._groups = groups
        self._index = index
        self._payloads = payloads
        self._stripes = stripes
        self._pool = pool
        self._stripe_bytes = stripe_bytes
        self._compression = squeeze
        self._run_codec = run_codec
        self._submit = submit
        self._pace = pace
        self._publisher = publisher
        self.stripes_count = max(
            1, min(STRIPES_MAX, memory_bytes // (MEMORY_PER_STRIPE * stripe_bytes))
        )
        """Moved at once, whoever asks: it bounds the memory."""
        self._turns = asyncio.Semaphore(self.stripes_count)

    async def move(self, entries: Sequence[l2p.Entry]) -> Moved:
        """Move as many entries, from the first on, as one stripe holds.

        Cancellation takes effect between reading, and each attempt at writing; nothing is half done
        then. Entries that are not moved stay where they are, whatever is raised.

        Durability: what is switched is on all k + m devices, each shard read back.

        Raises:
            StoreFullError, StoreReadOnlyError: no group takes a stripe, or no log the commit.
            DestageError: what was written did not verify, several times.
            OverloadedError: no memory now.
            CouchestorError: the commit failed.
        """
        taken = entries[: self.fitting_count(entries)]
        moved = Moved(taken_count=len(taken))
        room = sum(packed_stripe.payload_bytes(entry.location.stored_bytes) for entry in taken)
        async with self._turns:
            await self._pace(room)
            with self._pool.acquire(packed_stripe.table_bytes(len(taken)) + room) as buffer:
                packed = await uninterrupted.to_the_end(self._pack(taken, buffer.view, moved))
                if packed is not None:
                    await self._write(packed, moved)
        return moved

    def fitting_count(self, entries: Sequence[l2p.Entry]) -> int:
        """How many of the first entries one stripe holds; at least one."""
        assert entries, "nothing to move"
        count = 0
        total = 0
        for entry in entries[:ENTRIES_PER_STRIPE_MAX]:
            total += packed_stripe.payload_bytes(entry.location.stored_bytes)
            if total + packed_stripe.table_bytes(count + 1) > self._stripe_bytes:
                break
            count += 1
        return max(count, 1)

    # -- reading --------------------------------------------------------------------------------

    async def _pack(
        self, entries: Sequence[l2p.Entry], scratch: memoryview, moved: Moved
    ) -> _Packed | None:
        """Payloads side by side behind a place for the table; None when none can be read."""
        started_at = asyncio.get_running_loop().time()
        first = position = packed_stripe.table_bytes(len(entries))
        locations = [entry.location for entry in entries]
        held: list[tuple[l2p.Entry, packed_stripe.Entry]] = []
        wanted = payload_reader.window_bytes(locations)
        with self._pool.acquire(wanted) as buffer:
            window = buffer.view[:wanted]
            at = 0
            while at < len(entries):
                count = payload_reader.run_length(locations, at, window_bytes=wanted)
                run = entries[at : at + count]
                found = await self._payloads.read_run(locations[at : at + count], window)
                readable: list[tuple[l2p.Entry, memoryview]] = []
                for entry, payload in zip(run, found, strict=True):
                    if isinstance(payload, errors.CouchestorError):
                        self._pass_over(entry, payload, moved)
                    else:
                        readable.append((entry, payload))
                placed, position = await self._run_codec(self._place, readable, scratch, position)
                held += placed
                at += count
        if not held:
            return None
        if len(held) == 1 and not held[0][1].is_lz4:
            # As a plain stripe: no table, and the bytes begin where a chunk does.
            entry, part = held[0]
            data = scratch[first : first + part.stored_bytes]
            return _Packed(data, entry.address, [(entry, part._replace(start_bytes=0))], started_at)
        begin = first - packed_stripe.table_bytes(len(held))
        parts = [
            (entry, part._replace(start_bytes=part.start_bytes - begin)) for entry, part in held
        ]
        scratch[begin:first] = packed_stripe.pack([part for _, part in parts])
        address = ids.ExtentAddress(packed_stripe.ADDRESS)
        return _Packed(scratch[begin:position], address, parts, started_at)

    def _place(
        self,
        payloads: Sequence[tuple[l2p.Entry, memoryview]],
        scratch: memoryview,
        position: int,
    ) -> tuple[list[tuple[l2p.Entry, packed_stripe.Entry]], int]:
        """Put payloads side by side from ``position`` on, compressed where that is worth it; where
        they lie, and the position behind them. CPU only: it runs on the codec pool."""
        placed = []
        for entry, payload in payloads:
            stored: bytes | memoryview = payload
            is_lz4 = isinstance(entry.location, l2p_record.Lz4Location)
            if not is_lz4 and (block := self._compression.compressed(payload)) is not None:
                stored, is_lz4 = block, True
            end = position + len(stored)
            scratch[position:end] = stored
            part = packed_stripe.Entry(
                entry.address, position, len(stored), entry.location.length_bytes, is_lz4
            )
            placed.append((entry, part))
            position = packed_stripe.payload_bytes(end)
            if end != position:
                scratch[end:position] = bytes(position - end)
        return placed, position

    def _pass_over(self, entry: l2p.Entry, why: errors.CouchestorError, moved: Moved) -> None:
        with self._index.read() as reader:
            if reader.get(l2p_record.key(entry.address)) != l2p_record.pack(entry.location):
                return  # Deleted or moved since it was chosen: nothing is wrong with it.
        moved.unreadable.append(entry)
        logger.error("bytes from address %d are not moved: %s", entry.address, why)

    # -- writing --------------------------------------------------------------------------------

    async def _write(self, packed: _Packed, moved: Moved) -> None:
        for attempt in range(ATTEMPTS_MAX):
            shape = self._groups.current_geometry()
            await self._pace(2 * shape.shards_count * shape.chunk_bytes(len(packed.data)))
            try:
                await uninterrupted.to_the_end(self._store(packed, moved))
                return
            except stripe_groups.GeometryChangedError as exc:
                failure: Exception = exc
            except (errors.DestageError, errors.StoreReadOnlyError, errors.OverloadedError) as exc:
                failure = exc
                if attempt + 1 == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        raise errors.DestageError(f"no stripe could be laid out: {failure}")

    async def _store(self, packed: _Packed, moved: Moved) -> None:
        """Write the stripe, read it back, switch the entries."""
        stripe = stripe_assembly.StripeBuffer(
            self._pool, self._groups.current_geometry(), len(packed.data)
        )
        try:
            position = 0
            for view in stripe.fill_views():
                view[:] = packed.data[position : position + len(view)]
                position += len(view)
            place = await self._groups.write_stripe(stripe, extent_address=packed.address)
            location = stripe_reader.StripeLocation(*place, stripe.chunk_bytes, stripe.data_bytes)
        finally:
            stripe.release()
        try:
            await self._verify(location, stripe.geometry)
            made = await self._switch(packed, location)
        finally:
            self._groups.settle(place)
        moved.stripe_bytes = location.data_bytes
        moved.switched_count = len(made)
        moved.switched_bytes = sum(move.location.length_bytes for move in made)
        if any(isinstance(move.expected, l2p_record.JournalLocation) for move in made):
            self._publisher.publish(
                events.StripeDestaged(
                    group_id=ids.GroupId(place.group_id),
                    stripe_offset_bytes=place.offset_bytes,
                    data_bytes=moved.switched_bytes,
                    duration_seconds=asyncio.get_running_loop().time() - packed.started_at,
                )
            )

    async def _verify(
        self, location: stripe_reader.StripeLocation, shape: geometry.StripeGeometry
    ) -> None:
        """Read every shard back. Raises DestageError."""
        with self._index.read() as reader:
            members = payload_reader.members_of(reader, location.group_id)
        wanted = shard.shard_bytes(location.chunk_bytes)
        with self._pool.acquire(wanted) as buffer:
            for index in range(shape.shards_count):
                try:
                    await self._stripes.read_shard_raw(
                        location, members, index, buffer.view[:wanted]
                    )
                except (errors.DeviceError, errors.StripeNotFoundError) as exc:
                    self._publisher.publish(
                        events.ShardFailed(
                            group_id=ids.GroupId(location.group_id),
                            stripe_offset_bytes=location.stripe_offset_bytes,
                            shard_index=index,
                            device_id=members.zones[index].device_id,
                            reason=f"cannot be read back: {exc}",
                        )
                    )
                    raise errors.DestageError(
                        f"a stripe of moved bytes is not whole after it was written, so they stay "
                        f"where they were: {exc}"
                    ) from exc

    async def _switch(
        self, packed: _Packed, stripe: stripe_reader.StripeLocation
    ) -> Sequence[l2p.Move]:
        moves = [
            l2p.Move(
                entry.address,
                entry.location,
                l2p_record.Lz4Location(
                    *stripe, part.start_bytes, part.logical_bytes, part.stored_bytes
                )
                if part.is_lz4
                else l2p_record.StripeLocation(*stripe, part.start_bytes, part.logical_bytes),
            )
            for entry, part in packed.parts
        ]
        made = await self._submit(
            commit_log.Operation(
                apply=lambda txn, _: l2p.replace_all(txn, moves), uses_reserve=True
            )
        )
        assert isinstance(made, list), made
        return made
