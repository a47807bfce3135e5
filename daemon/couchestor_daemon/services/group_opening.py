"""Stripe groups come into being: zones on distinct devices, owned by one commit, with headers.

line                               index                    a crash here leaves
commit: zones owned, group OPEN    a group, no stripe       a group that is formatted when its
                                                            writer adopts it
zones reset, headers written       the same                 the same
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, group_zones, open_group, zone_allocation
from couchestor_domain import errors, event_publisher, events, geometry

Submit = Callable[[commit_log.Operation], Awaitable[object]]
ChooseCodec = Callable[[geometry.StripeGeometry], codec_port.EcCodec]


class GroupOpening:
    """Opens groups for one writer, and gives back those that never held a stripe.

    Args:
        reserve_zones_count, reserve_share_count: See ``StripeGroups``.
        submit: Commits an operation through the group commit.
    """

    def __init__(
        self,
        *,
        writer: str,
        reserve_zones_count: int,
        reserve_share_count: int,
        media: media_port.Media,
        index: index_port.IndexStore,
        pool: buffers.BufferPool,
        choose_codec: ChooseCodec,
        submit: Submit,
        publisher: event_publisher.EventPublisher,
    ) -> None:
        self._writer = writer
        self._reserve_zones_count = reserve_zones_count
        self._reserve_share_count = reserve_share_count
        self._media = media
        self._index = index
        self._pool = pool
        self._choose_codec = choose_codec
        self._submit = submit
        self._publisher = publisher

    async def open(self, wanted: geometry.StripeGeometry) -> open_group.OpenGroup:
        """Take zones on distinct devices and write their headers, durably.

        Raises:
            StoreFullError: no zones, the reserve apart.
            StoreReadOnlyError: too few devices take zones.
            DeviceError: a header could not be written; the zones have been given back.
            CouchestorError: the commit failed.
        """
        codec_id = self._choose_codec(wanted).codec_id
        devices = list(self._media.healthy_devices())

        def apply(
            txn: index_port.IndexWriter, place: commit_log.Placement
        ) -> media_records.GroupRecord:
            group_id = self._index.next_sequence(commit_log.applied_sequence(txn))
            zones = zone_allocation.allocate(
                txn,
                devices,
                count=wanted.shards_count,
                role=zone_header.ZoneRole.GROUP,
                owner_id=group_id,
                keep_free_count=self._reserve_zones_count,
                reserve_share_count=self._reserve_share_count,
                leaves_moving_room=not self._reserve_share_count,
            )
            record = media_records.GroupRecord(
                group_id,
                int(media_records.ZoneSetState.OPEN),
                self._writer,
                wanted.data_shards,
                wanted.parity_shards,
                codec_id,
                tuple((zone.device_id, int(zone.zone_index)) for zone in zones),
            )
            txn.put(media_records.group_key(group_id), media_records.pack(record))
            return record

        record = await self._submit(
            commit_log.Operation(
                apply=apply,
                uses_reserve=self._reserve_share_count > 0,
                waits_for_room=False,  # The stripe does.
            )
        )
        assert isinstance(record, media_records.GroupRecord), record
        zones = media_records.zone_addresses(record.members)
        capacity = min(
            identity.zone_capacity_bytes
            for identity in devices
            if any(zone.device_id == identity.device_id for zone in zones)
        )
        try:
            await group_zones.format_zones(self._media, self._pool, record, zones)
        except errors.DeviceError:
            await self.abandon(open_group.OpenGroup(record, wanted, zones, 0, capacity))
            raise
        for zone in zones:
            self._publisher.publish(
                events.ZoneOpened(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="group",
                    owner_id=record.group_id,
                )
            )
        return open_group.OpenGroup(record, wanted, zones, zone_header.ZONE_HEADER_BYTES, capacity)

    async def abandon(self, group: open_group.OpenGroup) -> None:
        """Return the zones of a group that never held a stripe, so that failures use up no space.

        The zones are emptied before the commit that frees them: after it they may be another's.
        """
        for zone in group.zones:
            with contextlib.suppress(errors.DeviceError):
                await self._media.reset(zone)

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            txn.delete(media_records.group_key(group.record.group_id))
            for zone in group.zones:
                txn.delete(media_records.zone_key(zone))

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        for zone in group.zones:
            self._publisher.publish(
                events.ZoneReset(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    reclaimed_bytes=group.offset_bytes,
                )
            )
