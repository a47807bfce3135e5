"""A node whose groups each have a member on one device that is lost, and the rebuild of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from shard_node import ShardNode

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.services import rebuild, rebuild_order
from couchestor_domain import events, geometry, ids

SHAPE: Final = geometry.StripeGeometry(4, 2)
GROUPS_COUNT: Final = 7
STRIPE_BYTES: Final = 60_000
STRIPES_COUNT: Final = 3
"""Of each group."""
LOST: Final = ids.DeviceId(f"{0:032x}")
RESURVEY_SECONDS: Final = rebuild.LOOKS_PER_RESURVEY * rebuild.LOOK_SECONDS


class LostDeviceNode(ShardNode):
    """Sealed groups, each with a member on the device ``LOST``. Others go on whenever bytes are
    paced, or handed to a codec; time stands still."""

    reserve_zones_count = 0

    def __init__(self, *, devices_count: int = 8) -> None:
        super().__init__(SHAPE, devices_count=devices_count)
        self.rebuilt_at_once_max = 0
        self.has_begun_all = asyncio.Event()
        """Whether as many groups were under way as may be."""
        self.told: list[rebuild.Progress] = []

    def start(self) -> None:
        super().start()
        self.now_seconds = 1000.0
        self.start_rebuild()

    def start_rebuild(self) -> None:
        """Anew, with the pool as it is now."""
        self.work = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=self.reserve_zones_count,
            delay_seconds=0.0,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            now_ns=lambda: 1,
            report=lambda progress: self.told.append(progress),
        )

    async def run(self, function: Any, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    async def pace(self, bytes_count: int) -> None:
        self.rebuilt_at_once_max = max(self.rebuilt_at_once_max, len(self.fresh_zones()))
        if self.rebuilt_at_once_max == rebuild_order.GROUPS_AT_ONCE:
            self.has_begun_all.set()
        await asyncio.sleep(0)
        await super().pace(bytes_count)

    async def fill(self, *, groups_count: int = GROUPS_COUNT) -> None:
        """Write groups until so many have a member on the device that will be lost."""
        while len(self.of_device(LOST)) < groups_count:
            for _ in range(STRIPES_COUNT):
                await self.put(STRIPE_BYTES)
            await self.seal()

    def of_device(self, device_id: ids.DeviceId) -> set[int]:
        """Groups that have a member there."""
        return {r.group_id for r in self.records() if device_id in dict(r.members)}

    def lost_groups(self) -> list[int]:
        """Groups that have a member on the device ``LOST``, in the order of their ids."""
        return sorted(self.of_device(LOST))

    def present(self, group_id: int) -> list[int]:
        """Indexes of the members of a group that are elsewhere."""
        record = next(r for r in self.records() if r.group_id == group_id)
        return [index for index, (device, _) in enumerate(record.members) if device != LOST]

    def address_in(self, group_id: int) -> ids.ExtentAddress:
        """Of a stripe in a group."""
        return next(a for a in self.data if self.location(a).group_id == group_id)

    def fresh_zones(self) -> dict[ids.ZoneAddress, int]:
        """Zones that are being filled -> the group they are for."""
        with self.index.read() as reader:
            found = [
                (
                    media_records.zone_of_key(key),
                    media_records.unpack(media_records.ZoneRecord, value),
                )
                for key, value in reader.scan(*media_records.table_range(media_records.ZONES))
            ]
        role = int(zone_header.ZoneRole.REBUILD)
        return {zone: record.owner_id for zone, record in found if record.role == role}

    async def steps_until(self, reached: Callable[[], bool]) -> None:
        """Step as long as it takes."""
        for _ in range(1000):
            if reached():
                return
            await self.work.step()
        raise AssertionError("that never happens")

    async def settle(self) -> None:
        """Step until there is nothing to do for some time."""
        for _ in range(10_000):
            if await self.work.step() >= rebuild.LOOK_SECONDS:
                return
        raise AssertionError("the rebuild never comes to rest")

    def groups_of(self, kind: type[events.DomainEvent]) -> list[int]:
        """Groups that events of a kind name, in their order."""
        return [event.group_id for event in self.events_of(kind)]

    async def check(self) -> None:
        """Everything is whole, no zone is left over, no memory lent."""
        assert self.missing_shards() == []
        assert not self.fresh_zones()
        await self.check_zones()
        await self.check_data()
        assert self.pool.lent_bytes == 0
