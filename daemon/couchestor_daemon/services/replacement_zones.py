"""Zones that take the place of members: taken, swapped in for them, or given back.

What rebuild and ``member_moves`` fill. Both may be at it at once: each holds what it took until it
swaps it in or lets go of it, and what nobody holds is left over.

    line                                      after a crash there
    commit: zone taken (role REBUILD)         given back at the next start
    reset, header, shards                     the same
    flush, read back, verify                  the same
    commit: members swapped, the old zones    the group has its new members
    LEFT, repairs of the member deleted

See docs/adr/0007.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, repair_queue, shard_check, zone_allocation
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, event_publisher, events, ids

Submit = Callable[[commit_log.Operation], Awaitable[object]]


class ReplacementZones:
    """What replacing members changes in the index: one object for all that do in a process.

    Args:
        reserve_zones_count: Zones of each device that are left to deletes and the log.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        submit: Submit,
        reserve_zones_count: int,
        publisher: event_publisher.EventPublisher,
    ) -> None:
        self._index = index
        self._media = media
        self._submit = submit
        self._reserve_zones_count = reserve_zones_count
        self._publisher = publisher
        self._held: set[ids.ZoneAddress] = set()
        """Of attempts under way."""
        self._turn = asyncio.Lock()
        """A zone that is being taken or given back is nobody's yet, or nobody's any more: what is
        left over is only told when no such thing is under way."""

    def let_go(self, zones: Iterable[ids.ZoneAddress]) -> None:
        """Of what an attempt that has ended took: ``free_leftovers`` gives it back."""
        self._held.difference_update(zones)

    async def free_leftovers(self) -> None:
        """Give back what no attempt under way holds.

        Raises:
            CouchestorError: not all of it; call it again.
        """
        async with self._turn:
            await self._give_back(await self._leftovers())

    async def _leftovers(self) -> list[ids.ZoneAddress]:
        """Zones that attempts, of this process or an earlier one, took and did not give back.

        Their records are written once more, so that a swap that was never answered is void: else
        it could come back after a power loss, to zones that are emptied by then.
        """
        # What a cancelled step submitted may not have been committed yet; this waits behind it.
        await self._submit(commit_log.Operation(apply=lambda txn, _: None, uses_reserve=True))
        start, stop = media_records.table_range(media_records.ZONES)
        role = int(zone_header.ZoneRole.REBUILD)
        with self._index.read() as reader:
            keys = [
                key
                for key, value in reader.scan(start, stop)
                if _role(value) == role and media_records.zone_of_key(key) not in self._held
            ]
        if not keys:
            return []

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> list[ids.ZoneAddress]:
            left = []
            for key in keys:
                value = txn.get(key)
                if value is not None and _role(value) == role:
                    txn.put(key, value)
                    left.append(media_records.zone_of_key(key))
            return left

        left = await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        assert isinstance(left, list), left
        return left

    async def take(
        self,
        record: media_records.GroupRecord,
        indexes: Sequence[int],
        *,
        bytes_min: int,
        target: ids.DeviceId | None = None,
    ) -> dict[int, ids.ZoneAddress]:
        """A fresh zone for each of some members of a group, or for as many as have a place.

        They are held until they are swapped in or let go of.

        Args:
            bytes_min: What a zone must hold.
            target: The device that is to give it; None: the best.

        Raises:
            StoreFullError, StoreReadOnlyError: there is a place for none.
        """
        devices = [
            identity
            for identity in self._media.healthy_devices()
            if target in (None, identity.device_id)
        ]
        members = media_records.zone_addresses(record.members)
        known_domains = {
            zone.device_id: self._media.device(zone.device_id).identity.failure_domain
            for zone in members
            if shard_check.in_service(self._media, zone.device_id)
        }

        def apply(
            txn: index_port.IndexWriter, _: commit_log.Placement
        ) -> dict[int, ids.ZoneAddress]:
            holders = {index: zone.device_id for index, zone in enumerate(members)}
            domains = {identity.device_id: identity.failure_domain for identity in devices}
            domains |= known_domains
            taken: dict[int, ids.ZoneAddress] = {}
            failure: errors.ObjectStoreError | None = None
            for index in indexes:
                others = {device for other, device in holders.items() if other != index}
                try:
                    zone = zone_allocation.allocate_replacement(
                        txn,
                        [
                            identity
                            for identity in devices
                            if identity.device_id not in others
                            and identity.zone_capacity_bytes >= bytes_min
                        ],
                        replaced=members[index],
                        taken_domains=[domains[device] for device in others if device in domains],
                        owner_id=record.group_id,
                        keep_free_count=self._reserve_zones_count,
                    )
                except (errors.StoreFullError, errors.StoreReadOnlyError) as exc:
                    failure = exc
                    continue
                taken[index] = zone
                holders[index] = zone.device_id
            if failure is not None and not taken:
                raise failure
            return taken

        # Through the reserve of the log: what it takes of the zones is bounded apart.
        async with self._turn:
            taken = await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
            assert isinstance(taken, dict), taken
            self._held.update(taken.values())
        for zone in taken.values():
            self._publisher.publish(
                events.ZoneOpened(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="group",
                    owner_id=record.group_id,
                )
            )
        return taken

    async def _give_back(self, zones: Sequence[ids.ZoneAddress]) -> None:
        """Free zones that never became members, as ``_leftovers`` gave them.

        They are emptied before the commit that frees them: after it they may be another's.
        """
        if not zones:
            return
        for zone in zones:
            # One that is away keeps its bytes; whoever is given the zone next resets it first.
            with contextlib.suppress(errors.DeviceError):
                await self._media.reset(zone)
        role = int(zone_header.ZoneRole.REBUILD)

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            for zone in zones:
                key = media_records.zone_key(zone)
                value = txn.get(key)
                if value is not None and _role(value) == role:
                    txn.delete(key)

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        for zone in zones:
            self._publisher.publish(
                events.ZoneReset(
                    device_id=zone.device_id, zone_index=zone.zone_index, reclaimed_bytes=0
                )
            )

    async def swap(
        self,
        record: media_records.GroupRecord,
        fresh: Mapping[int, ids.ZoneAddress],
        *,
        unless_damaged: bool = False,
    ) -> bool:
        """Make durable zones members of the group in place of those at their indexes.

        Args:
            unless_damaged: Change nothing when a shard of the group waits for repair: what is said
                of it may be true of its copy, too.

        Returns:
            False, with nothing changed, when the group is not what it was, or nothing leads to it
            any more: then its zones are about to be reset.
        """
        members = list(record.members)
        old = [media_records.zone_addresses(record.members)[index] for index in fresh]
        for index, zone in fresh.items():
            members[index] = (zone.device_id, int(zone.zone_index))
        swapped = msgspec.structs.replace(record, members=tuple(members))
        group_key = media_records.group_key(record.group_id)
        expected = media_records.pack(record)
        stays = {zone: shard_check.in_service(self._media, zone.device_id) for zone in old}

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> bool:
            if txn.get(group_key) != expected or not liveness.group_bytes(txn, record.group_id):
                return False
            if unless_damaged and any(repair_queue.of_group(txn, record.group_id)):
                return False
            for zone in fresh.values():
                value = txn.get(media_records.zone_key(zone))
                if value != media_records.pack(
                    media_records.ZoneRecord(int(zone_header.ZoneRole.REBUILD), record.group_id)
                ):
                    return False
            txn.put(group_key, media_records.pack(swapped))
            owned = media_records.pack(
                media_records.ZoneRecord(int(zone_header.ZoneRole.GROUP), record.group_id)
            )
            left = media_records.pack(
                media_records.ZoneRecord(int(zone_header.ZoneRole.LEFT), record.group_id)
            )
            for zone in fresh.values():
                txn.put(media_records.zone_key(zone), owned)
            for zone, is_in_service in stays.items():
                if is_in_service:
                    txn.put(media_records.zone_key(zone), left)
                else:
                    txn.delete(media_records.zone_key(zone))
            for index in fresh:
                repair_queue.delete_of_member(txn, record.group_id, index)
            return True

        done = await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        if done is True:
            self.let_go(fresh.values())
        return done is True


def _role(value: bytes) -> int:
    return media_records.unpack(media_records.ZoneRecord, value).role
