"""Stripe groups being filled: lockstep appends over k + m distinct devices.

A group takes one stripe at a time; a writer keeps a few groups open so that requests do not wait
for one another. A stripe is answered only when all k + m shards are durable: when one fails, the
group takes no more and the stripe is written again to a group on healthy devices.

A stripe is unsettled until the commit that refers to it has ended. A group that takes no more
stripes is sealed once none of its stripes is unsettled: what is sealed and has no live bytes holds
nothing that anybody will ever ask for (docs/adr/0006).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    commit_log,
    group_adoption,
    group_opening,
    group_sealer,
    open_group,
    room_wait,
    stripe_assembly,
)
from couchestor_domain import errors, event_publisher, events, geometry, ids

logger = logging.getLogger(__name__)

STRIPE_ATTEMPTS_MAX: Final = 6

Submit = Callable[[commit_log.Operation], Awaitable[object]]
RunBlocking = Callable[..., Awaitable[object]]
ChooseCodec = Callable[[geometry.StripeGeometry], codec_port.EcCodec]


class StripePlace(NamedTuple):
    """Where a stripe was written: its group and its offset in each of the group's zones."""

    group_id: int
    offset_bytes: int


class StripeGroups:
    """The open groups of one writer.

    Args:
        reserve_zones_count: Zones of each device that groups leave free for the log.
        reserve_share_count: How many of those these groups may take all the same, because what
            they hold leaves more zones than it takes.
        submit: Commits an operation through the group commit.
        run_codec: Runs a CPU-heavy function on the codec pool.
        inline_bytes_max: Stripes with no more user bytes are coded on the event loop, in less time
            than the way to a thread and back takes.
        run_blocking: Runs device commands that are not in the media port on a pool.
        room: How long a stripe waits for zones of a new group; without it it does not.
    """

    def __init__(
        self,
        *,
        writer: str,
        wanted: geometry.StripeGeometry,
        open_groups_max: int,
        reserve_zones_count: int = 0,
        reserve_share_count: int = 0,
        media: media_port.Media,
        index: index_port.IndexStore,
        pool: buffers.BufferPool,
        choose_codec: ChooseCodec,
        submit: Submit,
        run_codec: RunBlocking,
        inline_bytes_max: int = 0,
        run_blocking: RunBlocking,
        publisher: event_publisher.EventPublisher,
        room: room_wait.RoomWait | None = None,
    ) -> None:
        self._wanted = wanted
        self._open_groups_max = open_groups_max
        self._media = media
        self._index = index
        self._pool = pool
        self._choose_codec = choose_codec
        self._run_codec = run_codec
        self._inline_bytes_max = inline_bytes_max
        self._publisher = publisher
        self._room = room
        self._open: list[open_group.OpenGroup] = []
        self._sealer = group_sealer.GroupSealer(submit=submit, publisher=publisher)
        self._unsettled: dict[StripePlace, open_group.OpenGroup] = {}
        self._opening = group_opening.GroupOpening(
            writer=writer,
            reserve_zones_count=reserve_zones_count,
            reserve_share_count=reserve_share_count,
            media=media,
            index=index,
            pool=pool,
            choose_codec=choose_codec,
            submit=submit,
            publisher=publisher,
        )
        self._opening_count = 0
        self._changed = asyncio.Condition()
        self._adoption = asyncio.Lock()
        self._adopted = False
        self._former = group_adoption.GroupAdoption(
            writer=writer, media=media, index=index, pool=pool, run_blocking=run_blocking
        )
        self._tended: dict[int, int] = {}
        """Where the next stripe of each open group would have been when they were last tended."""

    def current_geometry(self) -> geometry.StripeGeometry:
        """Geometry new stripes get with the devices that are healthy now.

        Raises:
            StoreReadOnlyError: fewer than m + 1 devices are healthy.
        """
        found = self._present_geometry()
        if found is None:
            healthy_count = len(self._media.healthy_devices())
            raise errors.StoreReadOnlyError(
                f"{healthy_count} healthy devices cannot hold a stripe with "
                f"{self._wanted.parity_shards} parity shards: writes wait until a device is back; "
                "reads go on",
                healthy=healthy_count,
            )
        return found

    def _present_geometry(self) -> geometry.StripeGeometry | None:
        return geometry.shrink_to_healthy(self._wanted, len(self._media.healthy_devices()))

    async def write_stripe(
        self, stripe: stripe_assembly.StripeBuffer, *, extent_address: ids.ExtentAddress
    ) -> StripePlace:
        """Make a filled stripe durable on every device of one group.

        Not to be cancelled: threads go on reading and writing the stripe's memory.

        Returns:
            The place, to be given to ``settle`` exactly once.

        Raises:
            StoreReadOnlyError, StoreFullError, GeometryChangedError.
            OverloadedError: it waited for zones for too long.
        """
        failure: BaseException | None = None
        for _ in range(STRIPE_ATTEMPTS_MAX):
            if self.current_geometry() != stripe.geometry:
                raise GeometryChangedError(f"the healthy devices no longer hold {stripe.geometry}")
            try:
                group = await self._take(stripe.geometry, stripe.shard_bytes)
            except errors.DeviceFullError as exc:
                raise errors.StoreFullError(f"no device has room for a stripe: {exc}") from exc
            except errors.DeviceError as exc:
                failure = exc
                continue
            written = False
            try:
                offset = group.offset_bytes
                seal = functools.partial(
                    stripe.seal,
                    self._choose_codec(stripe.geometry),
                    group_id=group.record.group_id,
                    stripe_offset_bytes=offset,
                    writer_epoch=0,
                    extent_address=extent_address,
                )
                if stripe.data_bytes <= self._inline_bytes_max:
                    seal()
                else:
                    await self._run_codec(seal)
                problems = await self._media.write_all(
                    [
                        media_port.ZoneWrite(zone, offset, stripe.shard(position))
                        for position, zone in enumerate(group.zones)
                    ],
                    durable=True,
                )
                if not problems:
                    group.offset_bytes = offset + stripe.shard_bytes
                    written = True
                    self._publisher.publish(
                        events.StripeEncoded(
                            group_id=ids.GroupId(group.record.group_id),
                            stripe_offset_bytes=offset,
                            data_bytes=stripe.data_bytes,
                            geometry=str(stripe.geometry),
                        )
                    )
                    place = StripePlace(group.record.group_id, offset)
                    group.unsettled_count += 1
                    self._unsettled[place] = group
                    return place
                for problem in problems:
                    if isinstance(problem, errors.DeviceFullError):
                        raise errors.StoreFullError(
                            f"no device has room for a stripe: {problem}"
                        ) from problem
                for problem in problems:
                    if isinstance(problem, errors.DeviceStalledError):
                        # Sealing it for another group would change what that device may yet write.
                        raise GeometryChangedError(
                            f"a device still reads the stripe's memory: {problem}"
                        ) from problem
                failure = problems[0]
            finally:
                await self._give_back(group, usable=written)
        if isinstance(failure, errors.DeviceStarvedError):
            raise errors.OverloadedError(f"a stripe cannot be written now: {failure}")
        raise errors.StoreReadOnlyError(f"no group accepts a stripe: {failure}")

    async def leave_unfit(self) -> None:
        """Seal the groups that new stripes no longer go to since the devices have changed, those
        that an earlier process of this writer left too; else an idle writer would keep them open,
        and so neither moved nor rebuilt. Waits for stripes that are being written."""
        wanted = self._present_geometry()
        if wanted is not None:
            await self._adopt(wanted)
        async with self._changed:
            while self._leave_unfit():
                await self._changed.wait()
            self._changed.notify_all()
        self._sealer.wake()

    def settle(self, place: StripePlace) -> None:
        """The commit that refers to a stripe has ended, well or badly, or was given up.

        Call exactly once for each place, from the event loop; never blocks.
        """
        assert place in self._unsettled, place
        group = self._unsettled.pop(place)
        group.unsettled_count -= 1
        self._sealer.wake()

    async def drain(self) -> None:
        """Wait for the sealing under way; before the commits are drained."""
        await self._sealer.drain()

    async def tend(self) -> None:
        """Look after groups that no stripe is written to: called every few seconds.

        What a former process of the writer left is taken over, and groups are left, so that they
        are sealed and can be rebuilt, that lost a member or have damage and took no stripe since
        the last call.

        Raises:
            OverloadedError: the pool lends no memory now.
        """
        with contextlib.suppress(errors.StoreReadOnlyError):
            await self._adopt(self.current_geometry())
        tended, self._tended = self._tended, {}
        async with self._changed:
            self._leave_lost_groups()
            for group in list(self._open):
                group_id = group.record.group_id
                self._tended[group_id] = group.offset_bytes
                is_idle = not group.busy and tended.get(group_id) == group.offset_bytes
                if is_idle and self._has_damage(group_id):
                    self._leave(group)
            self._changed.notify_all()
        self._sealer.wake()

    def _has_damage(self, group_id: int) -> bool:
        start, stop = media_records.group_repairs_range(group_id)
        with self._index.read() as reader:
            return next(iter(reader.scan(start, stop)), None) is not None

    async def _adopt(self, wanted: geometry.StripeGeometry) -> None:
        if self._adopted:
            return
        # Everyone waits for it: a group opened meanwhile would be one too many, at each start.
        async with self._adoption:
            if self._adopted:
                return
            try:
                found = await self._former.find(wanted)
            finally:
                # Once: a group taken over twice would be two writers in its zones.
                self._adopted = True
            self._open += found.usable
            for group in found.left:
                self._sealer.take_over(group)

    async def _take(
        self, wanted: geometry.StripeGeometry, shard_bytes: int
    ) -> open_group.OpenGroup:
        """A group of this geometry, for the caller alone, with room for such a shard."""
        await self._adopt(wanted)
        self._sealer.wake()
        if self._room is None:
            return await self._take_now(wanted, shard_bytes)
        return await self._room.until_there_is(lambda: self._take_now(wanted, shard_bytes))

    async def _take_now(
        self, wanted: geometry.StripeGeometry, shard_bytes: int
    ) -> open_group.OpenGroup:
        """Raises StoreFullError when no group can be opened and none is open."""
        waits_for_others = False
        while True:
            async with self._changed:
                while (group := self._free_group(wanted, shard_bytes)) is None:
                    live = sum(1 for group in self._open if group.geometry == wanted)
                    may_open = live + self._opening_count < self._open_groups_max
                    if may_open and not (waits_for_others and live):
                        self._opening_count += 1
                        break
                    await self._changed.wait()
            if group is not None:
                return group
            try:
                if len(self._media.healthy_devices()) < wanted.shards_count:
                    raise GeometryChangedError(f"the healthy devices no longer hold {wanted}")
                group = await self._opening.open(wanted)
                group.busy = True
                self._open.append(group)
            except errors.StoreFullError:
                if not any(group.geometry == wanted for group in self._open):
                    raise
                waits_for_others = True
                continue
            finally:
                async with self._changed:
                    self._opening_count -= 1
                    self._changed.notify_all()
            return group

    def _free_group(
        self, wanted: geometry.StripeGeometry, shard_bytes: int
    ) -> open_group.OpenGroup | None:
        """An open group that nobody writes to, taken; those that are full are left."""
        self._leave_lost_groups()
        for group in list(self._open):
            if group.busy or group.geometry != wanted:
                continue
            if group.offset_bytes + shard_bytes <= group.capacity_bytes:
                group.busy = True
                return group
            self._leave(group)
        return None

    async def _give_back(self, group: open_group.OpenGroup, *, usable: bool) -> None:
        """Let others have the group; one whose zones are out of step is closed for good."""
        async with self._changed:
            group.busy = False
            if not usable:
                self._open.remove(group)
            self._changed.notify_all()
        if usable:
            return
        if group.offset_bytes > zone_header.ZONE_HEADER_BYTES:
            self._sealer.take_over(group)
        else:
            await self._opening.abandon(group)

    def _leave(self, group: open_group.OpenGroup) -> None:
        self._open.remove(group)
        self._sealer.take_over(group)

    def _leave_lost_groups(self) -> None:
        """Groups with a member that left take no stripe any more, whoever noticed."""
        healthy = {identity.device_id for identity in self._media.healthy_devices()}
        for group in list(self._open):
            if not group.busy and any(zone.device_id not in healthy for zone in group.zones):
                self._leave(group)

    def _leave_unfit(self) -> bool:
        """Leave what is not being written to; whether something else is to be left."""
        healthy = {identity.device_id for identity in self._media.healthy_devices()}
        wanted = self._present_geometry()
        unfit = [
            group
            for group in self._open
            if group.geometry != (wanted or group.geometry)
            or any(zone.device_id not in healthy for zone in group.zones)
        ]
        for group in unfit:
            if not group.busy:
                self._leave(group)
        return any(group.busy for group in unfit)


class GeometryChangedError(Exception):
    """The stripe must be laid out again, in other memory, for the devices that are left."""
