"""Ranges of stripes, verified, decoded from other shards where a shard fails."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_daemon.formats import shard
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, event_publisher, events, geometry, ids, units

HEADERS_KEPT_MAX: Final = 16384
JOINED_READ_BYTES_MAX: Final = 128 * units.KIB
"""A range that ends this near the chunk's start is read together with the header."""
INLINE_WORK_BYTES_MAX: Final = 256 * units.KIB
"""Longer decoding leaves the event loop."""


class StripeLocation(NamedTuple):
    """A stripe in its group."""

    group_id: int
    stripe_offset_bytes: int
    chunk_bytes: int
    data_bytes: int


class GroupMembers(NamedTuple):
    """How a group is coded and where its shards are: zone i holds shard i."""

    geometry: geometry.StripeGeometry
    codec_id: int
    zones: tuple[ids.ZoneAddress, ...]


IsNamed = Callable[[], bool]
Codecs = Callable[[geometry.StripeGeometry, int], codec_port.EcCodec]
OnDamage = Callable[[int, int, int, str], None]
RunCodec = Callable[[Callable[[], None]], Awaitable[object]]


class _Rows(NamedTuple):
    """A block-aligned byte range of every chunk of a stripe."""

    start: int
    end: int


@dataclass(slots=True, eq=False)
class _Want:
    """One chunk's part of a read."""

    index: int
    start: int
    target: memoryview
    rows: _Rows


@dataclass(slots=True, eq=False)
class _Stripe:
    """One read's view of a stripe, and what failed so far."""

    location: StripeLocation
    members: GroupMembers
    is_named: IsNamed
    failed: dict[int, str]
    reported: bool = False
    """Whether a failure was told as damage."""


def always_named() -> bool:
    """For a stripe that cannot be given up during the read."""
    return True


async def _run_inline(work: Callable[[], None]) -> None:
    work()


class StripeReader:
    """Reads through ``media``; every byte given out matched a checksum of its own shard or was
    decoded from shards that did.

    Args:
        codecs: Codec of a geometry and codec id.
        on_damage: Told (group, stripe offset, shard index, reason) once per failed shard per read,
            for the repair queue; must not block.
        run_codec: Runs decoding of large ranges, e.g. on the codec pool; inline by default.
    """

    def __init__(
        self,
        media: media_port.Media,
        *,
        codecs: Codecs,
        publisher: event_publisher.EventPublisher,
        on_damage: OnDamage,
        run_codec: RunCodec = _run_inline,
    ) -> None:
        self._media = media
        self._codecs = codecs
        self._publisher = publisher
        self._on_damage = on_damage
        self._run_codec = run_codec
        self._headers: OrderedDict[tuple[int, int, int], shard.ShardHeader] = OrderedDict()

    async def read(
        self,
        location: StripeLocation,
        members: GroupMembers,
        start_bytes: int,
        length_bytes: int,
        out: memoryview,
        *,
        is_named: IsNamed = always_named,
    ) -> None:
        """Fill ``out`` with user bytes [start, start + length) of a stripe.

        ``out`` is writable and ``length_bytes`` long; after an error its content is undefined.

        Args:
            is_named: Whether the index still leads to the stripe on these members; asked when a
                shard fails. If not, its zones may have been given to others: that is no damage.

        Raises:
            InsufficientShardsError: fewer shards verify than the code needs.
            StripeNotFoundError: the range is not inside the stripe.
        """
        assert len(out) == length_bytes, (len(out), length_bytes)
        if not 0 <= start_bytes <= start_bytes + length_bytes <= location.data_bytes:
            raise errors.StripeNotFoundError(
                f"bytes {start_bytes} to {start_bytes + length_bytes} are not inside the "
                f"{location.data_bytes} bytes of stripe {location.stripe_offset_bytes} of group "
                f"{location.group_id}"
            )
        stripe = _Stripe(location, members, is_named, {})
        everything = _wants(location, members.geometry, start_bytes, length_bytes, out)
        wants = [want for want in everything if not self._try_want(stripe, want)]
        if not wants:
            return
        if len(wants) == 1:
            results = [await self._read_want(stripe, wants[0])]
        else:
            results = await self._read_wants(stripe, wants)
        if not stripe.failed:
            return
        missing = [want for want, ok in zip(wants, results, strict=True) if not ok]
        await self._decode(stripe, missing, [want for want in everything if want not in missing])

    async def read_shard_raw(
        self, location: StripeLocation, members: GroupMembers, shard_index: int, out: memoryview
    ) -> shard.ShardHeader:
        """Read and verify one whole shard, header and chunk, for scrub and rebuild.

        ``out`` is ``shard.shard_bytes(location.chunk_bytes)`` long and holds what was read even
        when it does not verify. Neither events nor ``on_damage``: the caller decides.

        Raises:
            DeviceError: it could not be read.
            StripeNotFoundError: what lies there is not this shard, or is damaged.
        """
        assert len(out) == shard.shard_bytes(location.chunk_bytes), len(out)
        await self._fill(members.zones[shard_index], location.stripe_offset_bytes, out)
        stripe = _Stripe(location, members, always_named, {})
        header = self._accept(stripe, shard_index, out)
        if header is None or not shard.verify_blocks(
            header, 0, out[shard.header_bytes(location.chunk_bytes) :]
        ):
            problem = "is not there" if header is None else "does not match its checksums"
            raise errors.StripeNotFoundError(
                f"shard {shard_index} of stripe {location.stripe_offset_bytes} of group "
                f"{location.group_id} on device {members.zones[shard_index].device_id} {problem}"
            )
        return header

    # -- one chunk ------------------------------------------------------------------------------

    def _try_want(self, stripe: _Stripe, want: _Want) -> bool:
        """Serve whole rows of a known shard that are in memory, without a task or a thread.

        False leaves everything, the verdict on the shard too, to ``_read_want``.
        """
        location, rows = stripe.location, want.rows
        if want.start != rows.start or len(want.target) != rows.end - rows.start:
            return False
        key = (location.group_id, location.stripe_offset_bytes, want.index)
        header = self._headers.get(key)
        if header is None or not _is_header_of(header, stripe, want.index):
            return False
        place = location.stripe_offset_bytes + shard.header_bytes(location.chunk_bytes) + rows.start
        try:
            if not self._media.try_read(stripe.members.zones[want.index], place, want.target):
                return False
        except errors.DeviceError:
            return False
        if not shard.verify_blocks(header, rows.start // shard.CHECKSUM_BLOCK_BYTES, want.target):
            return False
        self._headers.move_to_end(key)
        return True

    async def _read_wants(self, stripe: _Stripe, wants: Sequence[_Want]) -> list[bool]:
        ended = await asyncio.gather(
            *(self._read_want(stripe, want) for want in wants), return_exceptions=True
        )
        results = []
        for outcome in ended:
            # Raised only now, so that nothing still writes into what the caller gave.
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def _read_want(self, stripe: _Stripe, want: _Want) -> bool:
        rows = want.rows
        inside = want.start - rows.start
        length = len(want.target)
        exact = inside == 0 and rows.end - rows.start == length
        found = await self._read_rows(stripe, want.index, rows, want.target if exact else None)
        if found is None:
            return False
        if not exact:
            want.target[:] = found[inside : inside + length]
        return True

    async def _read_rows(
        self, stripe: _Stripe, index: int, rows: _Rows, target: memoryview | None
    ) -> memoryview | None:
        """Verified rows of one shard's chunk, in ``target`` if that is given; None when the shard
        failed, which is then in ``stripe.failed`` and reported.
        """
        location = stripe.location
        zone = stripe.members.zones[index]
        header_bytes = shard.header_bytes(location.chunk_bytes)
        at = location.stripe_offset_bytes
        key = (location.group_id, at, index)
        header = self._headers.get(key)
        if header is not None and not _is_header_of(header, stripe, index):
            header = None
        try:
            if header is None and rows.end <= JOINED_READ_BYTES_MAX:
                window = memoryview(bytearray(header_bytes + rows.end))
                await self._fill(zone, at, window)
                header = self._accept(stripe, index, window)
                body = window[header_bytes + rows.start :]
                if target is not None:
                    target[:] = body
                    body = target
            else:
                body = (
                    target if target is not None else memoryview(bytearray(rows.end - rows.start))
                )
                place = at + header_bytes + rows.start
                if header is not None:
                    await self._fill(zone, place, body)
                else:
                    window = memoryview(bytearray(header_bytes))
                    ended = await asyncio.gather(
                        self._fill(zone, at, window),
                        self._fill(zone, place, body),
                        return_exceptions=True,
                    )
                    for outcome in ended:
                        # Raised only now, so that nothing still writes into ``target``.
                        if isinstance(outcome, BaseException):
                            raise outcome
                    header = self._accept(stripe, index, window)
        except errors.DeviceError as exc:
            self._fail(stripe, index, f"cannot be read: {exc}")
            return None
        if header is None:
            self._fail(stripe, index, "another or no shard lies there")
            return None
        if not shard.verify_blocks(header, rows.start // shard.CHECKSUM_BLOCK_BYTES, body):
            # The next read looks at the medium again, which a repair may have changed.
            self._headers.pop(key, None)
            self._fail(stripe, index, "does not match its checksums")
            return None
        if key in self._headers:
            self._headers.move_to_end(key)
        else:
            self._headers[key] = header
            if len(self._headers) > HEADERS_KEPT_MAX:
                self._headers.popitem(last=False)
        return body

    async def _fill(self, zone: ids.ZoneAddress, offset_bytes: int, view: memoryview) -> None:
        if not self._media.try_read(zone, offset_bytes, view):
            await self._media.read(zone, offset_bytes, view)

    def _accept(self, stripe: _Stripe, index: int, window: memoryview) -> shard.ShardHeader | None:
        header = shard.unpack(window[: shard.header_bytes(stripe.location.chunk_bytes)])
        return header if header is not None and _is_header_of(header, stripe, index) else None

    def _fail(self, stripe: _Stripe, index: int, reason: str) -> None:
        if index in stripe.failed:
            return
        stripe.failed[index] = reason
        if not stripe.is_named():
            return
        stripe.reported = True
        location = stripe.location
        self._publisher.publish(
            events.ShardFailed(
                group_id=ids.GroupId(location.group_id),
                stripe_offset_bytes=location.stripe_offset_bytes,
                shard_index=index,
                device_id=stripe.members.zones[index].device_id,
                reason=reason,
            )
        )
        self._on_damage(location.group_id, location.stripe_offset_bytes, index, reason)

    # -- degraded -------------------------------------------------------------------------------

    async def _decode(
        self, stripe: _Stripe, wants: Sequence[_Want], served: Sequence[_Want]
    ) -> None:
        """Fill the targets of ``wants``; those of ``served`` hold verified bytes already."""
        for rows in _merged(want.rows for want in wants):
            here = [w for w in wants if rows.start <= w.rows.start and w.rows.end <= rows.end]
            # Straight into the targets that have the shape of the rows.
            rebuilt = _whole_rows(here, rows)
            in_place = set(rebuilt)
            for want in here:
                if want.index not in in_place:
                    rebuilt[want.index] = memoryview(bytearray(rows.end - rows.start))
            await self._rebuild_rows(stripe, rows, rebuilt, _whole_rows(served, rows))
            for want in here:
                if want.index not in in_place:
                    inside = want.start - rows.start
                    want.target[:] = rebuilt[want.index][inside : inside + len(want.target)]
        if stripe.reported:
            self._publisher.publish(
                events.DegradedRead(
                    group_id=ids.GroupId(stripe.location.group_id),
                    stripe_offset_bytes=stripe.location.stripe_offset_bytes,
                    missing_shards=tuple(sorted(stripe.failed)),
                )
            )

    async def _rebuild_rows(
        self,
        stripe: _Stripe,
        rows: _Rows,
        rebuilt: Mapping[int, memoryview],
        available: dict[int, memoryview],
    ) -> None:
        """Decode the rows of the shards named in ``rebuilt`` into the memory given there.

        Args:
            available: Rows that are known already; filled up with what else is read.
        """
        shape = stripe.members.geometry
        codec = self._codecs(shape, stripe.members.codec_id)
        wanted_count = shape.data_shards
        while True:
            await self._gather_shards(stripe, rows, available, wanted_count)

            def work() -> None:
                codec.reconstruct(available, rebuilt)

            try:
                if (rows.end - rows.start) * shape.data_shards > INLINE_WORK_BYTES_MAX:
                    await self._run_codec(work)
                else:
                    work()
            except errors.InsufficientShardsError as exc:
                # A locally repairable code may need other shards than the first k.
                if wanted_count == shape.shards_count:
                    raise self._insufficient(stripe, available) from exc
                wanted_count = shape.shards_count
                continue
            return

    async def _gather_shards(
        self,
        stripe: _Stripe,
        rows: _Rows,
        available: dict[int, memoryview],
        wanted_count: int,
    ) -> None:
        """Read further shards until ``wanted_count`` verify or none is left to try.

        Raises:
            InsufficientShardsError: fewer than k verify.
        """
        shape = stripe.members.geometry
        while len(available) < wanted_count:
            untried = [
                index
                for index in range(shape.shards_count)
                if index not in available and index not in stripe.failed
            ]
            chosen = untried[: wanted_count - len(available)]
            if not chosen:
                break
            found = await asyncio.gather(
                *(self._read_rows(stripe, index, rows, None) for index in chosen)
            )
            for index, body in zip(chosen, found, strict=True):
                if body is not None:
                    available[index] = body
        if len(available) < shape.data_shards:
            raise self._insufficient(stripe, available)

    def _insufficient(
        self, stripe: _Stripe, available: dict[int, memoryview]
    ) -> errors.InsufficientShardsError:
        location = stripe.location
        reasons = "; ".join(
            f"shard {index} on device {stripe.members.zones[index].device_id} {reason}"
            for index, reason in sorted(stripe.failed.items())
        )
        return errors.InsufficientShardsError(
            f"stripe {location.stripe_offset_bytes} of group {location.group_id} "
            f"({stripe.members.geometry}) cannot be read: "
            f"{len(available)} shards verify; {reasons}",
            group=location.group_id,
            offset=location.stripe_offset_bytes,
            failed_shards=tuple(sorted(stripe.failed)),
        )


def _wants(
    location: StripeLocation,
    shape: geometry.StripeGeometry,
    start_bytes: int,
    length_bytes: int,
    out: memoryview,
) -> list[_Want]:
    wants = []
    position = 0
    for part in shape.chunk_ranges(
        chunk_bytes=location.chunk_bytes, start_bytes=start_bytes, length_bytes=length_bytes
    ):
        end = units.align_up(part.start_bytes + part.length_bytes, shard.CHECKSUM_BLOCK_BYTES)
        rows = _Rows(
            units.align_down(part.start_bytes, shard.CHECKSUM_BLOCK_BYTES),
            min(end, location.chunk_bytes),
        )
        target = out[position : position + part.length_bytes]
        wants.append(_Want(part.shard_index, part.start_bytes, target, rows))
        position += part.length_bytes
    return wants


def _merged(ranges: Iterable[_Rows]) -> list[_Rows]:
    """Disjoint row ranges that cover all of ``ranges``, so that no row is decoded twice."""
    merged: list[_Rows] = []
    for rows in sorted(ranges):
        if merged and rows.start < merged[-1].end:
            merged[-1] = _Rows(merged[-1].start, max(merged[-1].end, rows.end))
        else:
            merged.append(rows)
    return merged


def _whole_rows(wants: Iterable[_Want], rows: _Rows) -> dict[int, memoryview]:
    """Rows that lie in targets as they lie on media, by shard: they need not be read again."""
    found = {}
    for want in wants:
        inside = rows.start - want.start
        length = rows.end - rows.start
        if inside >= 0 and inside + length <= len(want.target):
            found[want.index] = want.target[inside : inside + length]
    return found


def _is_header_of(header: shard.ShardHeader, stripe: _Stripe, index: int) -> bool:
    location, members = stripe.location, stripe.members
    return (
        header.group_id == location.group_id
        and header.stripe_offset_bytes == location.stripe_offset_bytes
        and header.shard_index == index
        and header.chunk_bytes == location.chunk_bytes
        and header.data_bytes == location.data_bytes
        and header.data_shards == members.geometry.data_shards
        and header.parity_shards == members.geometry.parity_shards
        and header.codec_id == members.codec_id
    )
