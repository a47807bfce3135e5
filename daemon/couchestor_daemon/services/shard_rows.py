"""Verified rows of single shards: the headers they are verified by, and the verdict on a shard."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_daemon.formats import shard
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import chunk_rows, hedging
from couchestor_domain import errors, event_publisher, events, geometry, ids, units

HEADERS_KEPT_MAX: Final = 16384
JOINED_READ_BYTES_MAX: Final = 128 * units.KIB
"""A range that ends this near the chunk's start is read together with the header."""

IsNamed = Callable[[], bool]
OnDamage = Callable[[int, int, int, str], None]


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


@dataclass(slots=True, eq=False)
class Stripe:
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


class ShardRows:
    """Reads rows of shards through ``media``; none is given out that did not match its checksum.

    Args:
        on_damage: Told (group, stripe offset, shard index, reason) once per failed shard per read.
        slow_reads: Told what each read took.
    """

    def __init__(
        self,
        media: media_port.Media,
        *,
        publisher: event_publisher.EventPublisher,
        on_damage: OnDamage,
        slow_reads: hedging.Hedging | None,
    ) -> None:
        self._media = media
        self._publisher = publisher
        self._on_damage = on_damage
        self._hedging = slow_reads
        self._headers: OrderedDict[tuple[int, int, int], shard.ShardHeader] = OrderedDict()

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
        stripe = Stripe(location, members, always_named, {})
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

    def try_want(self, stripe: Stripe, want: chunk_rows.Want) -> bool:
        """Serve whole rows of a known shard that are in memory, without a task or a thread.

        False leaves everything, the verdict on the shard too, to ``read_rows``.
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
        want.served = True
        return True

    async def read_rows(
        self, stripe: Stripe, index: int, rows: chunk_rows.Rows, target: memoryview | None
    ) -> memoryview | None:
        """Verified rows of one shard's chunk, in ``target`` if that is given; None when the shard
        failed, which is then in ``stripe.failed``, and reported unless only this process is at
        fault.
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
        except errors.DeviceStarvedError as exc:
            # Nothing is wrong with the shard, so there is nothing to repair: only to read around.
            stripe.failed.setdefault(index, f"cannot be read now: {exc}")
            return None
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
        if self._media.try_read(zone, offset_bytes, view):
            return
        if self._hedging is None:
            await self._media.read(zone, offset_bytes, view)
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._media.read(zone, offset_bytes, view)
        self._hedging.measured(zone.device_id, loop.time() - started)

    def _accept(self, stripe: Stripe, index: int, window: memoryview) -> shard.ShardHeader | None:
        header = shard.unpack(window[: shard.header_bytes(stripe.location.chunk_bytes)])
        return header if header is not None and _is_header_of(header, stripe, index) else None

    def _fail(self, stripe: Stripe, index: int, reason: str) -> None:
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


def _is_header_of(header: shard.ShardHeader, stripe: Stripe, index: int) -> bool:
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
