"""Stripes in groups as a writer makes them, over devices that can be lost and damaged.

In memory; or simulated, when a world is given, so that the process can be crashed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import xxhash

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    inline_media,
    isal_codec,
    memory_device,
    memory_index,
    simulated_device,
)
from couchestor_daemon.formats import l2p_record, media_records, packed_stripe, shard, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    group_commit,
    group_zones,
    repair_tools,
    stripe_assembly,
    stripe_groups,
    stripe_reader,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, events, geometry, ids, units

isal_codec.load_library()


def identity(number: int, *, zone_bytes: int, domain: str = "") -> device_port.DeviceIdentity:
    """Device number ``number`` of a node."""
    return device_port.DeviceIdentity(
        node_id=ids.NodeId("a" * 32),
        device_id=ids.DeviceId(f"{number:032x}"),
        label=f"d{number}",
        failure_domain=domain or f"d{number}",
        zone_count=64,
        zone_capacity_bytes=zone_bytes,
        joined_epoch=1,
    )


class ShardNode:
    """One writer over devices in memory, and what it wrote."""

    def __init__(
        self,
        shape: geometry.StripeGeometry,
        *,
        devices_count: int,
        zone_bytes: int = units.MIB,
        codec: str = "rs",
        world: simulated_device.SimulatedWorld | None = None,
    ) -> None:
        self.shape = shape
        self.zone_bytes = zone_bytes
        self.codec = codec
        self.world = world
        self.rng = random.Random(f"{shape} {devices_count}")
        self.devices: dict[ids.DeviceId, device_port.ZonedDevice] = {}
        for number in range(devices_count):
            self.add_device(number)
        self.index = memory_index.MemoryIndex()
        self.data: dict[ids.ExtentAddress, bytes] = {}
        self.published: list[events.DomainEvent] = []
        self.damage: list[tuple[int, int, int, str]] = []
        self.paced_bytes = 0
        self._next_address = 1 << 20
        self.start()

    def start(self) -> None:
        """A new process on what is there."""
        self.media = inline_media.InlineMedia(self.devices, lambda device_id, error: None)
        self.pool = buffers.BufferPool(32 * units.MIB)
        self._log = commit_log.CommitLog(
            writer="w",
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=self.shape.parity_shards + 1,
            publisher=self,
        )
        self.commits = group_commit.GroupCommit(self._run_commit)
        self.groups = self.fresh_groups()
        self.reader = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self,
            on_damage=lambda *found: self.damage.append(found),
        )

    def fresh_groups(self) -> stripe_groups.StripeGroups:
        """A writer that has no group open yet."""
        return stripe_groups.StripeGroups(
            writer="w",
            wanted=self.shape,
            open_groups_max=1,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda found: codec_choice.choose(self.codec, found),
            submit=self.commits.submit,
            run_codec=self.run,
            run_blocking=self.run,
            publisher=self,
        )

    async def _run_commit(self, gather: commit_log.Gather) -> None:
        self._log.commit_gathered(gather)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Stands for a thread pool."""
        return function(*arguments)

    async def pace(self, bytes_count: int) -> None:
        """Counts."""
        self.paced_bytes += bytes_count

    def publish(self, event: events.DomainEvent) -> None:
        """Keep it."""
        self.published.append(event)

    def events_of(self, kind: type[events.DomainEvent]) -> list[Any]:
        """Events of one kind so far."""
        return [event for event in self.published if isinstance(event, kind)]

    @property
    def tools(self) -> repair_tools.Tools:
        """For a rebuild."""
        return repair_tools.Tools(
            index=self.index,
            media=self.media,
            pool=self.pool,
            codecs=codec_choice.by_id,
            run_codec=self.run,
            run_blocking=self.run,
            pace=self.pace,
        )

    async def change(self, apply: Callable[[index_port.IndexWriter], None]) -> None:
        """One commit."""
        await self.commits.submit(commit_log.Operation(apply=lambda txn, _: apply(txn)))

    # -- what is written ------------------------------------------------------------------------

    async def put(
        self, length_bytes: int, *, mapped: bool = True, packed: bool = False
    ) -> ids.ExtentAddress:
        """Write a stripe; without ``mapped`` nothing leads to it. With ``packed`` its shards do not
        name the address."""
        address = ids.ExtentAddress(self._next_address)
        self._next_address += length_bytes
        data = self.rng.randbytes(length_bytes)
        stripe = stripe_assembly.StripeBuffer(self.pool, self.shape, length_bytes)
        position = 0
        for view in stripe.fill_views():
            view[:] = data[position : position + len(view)]
            position += len(view)
        place = await self.groups.write_stripe(
            stripe, extent_address=ids.ExtentAddress(packed_stripe.ADDRESS) if packed else address
        )
        location = l2p_record.StripeLocation(
            *place, stripe.chunk_bytes, length_bytes, 0, length_bytes
        )
        stripe.release()
        if mapped:
            await self.change(lambda txn: l2p.insert(txn, address, location))
            self.data[address] = data
        self.groups.settle(place)
        return address

    async def put_packed(self, lengths_bytes: Sequence[int]) -> list[ids.ExtentAddress]:
        """Write a stripe as relocation does: its table, then extents that lie anywhere."""
        position = packed_stripe.table_bytes(len(lengths_bytes))
        content = bytearray(position)
        parts = []
        for length_bytes in lengths_bytes:
            address = ids.ExtentAddress(self._next_address)
            self._next_address += 2 * length_bytes
            self.data[address] = self.rng.randbytes(length_bytes)
            parts.append(packed_stripe.Entry(address, position, length_bytes, length_bytes, False))
            padded = packed_stripe.payload_bytes(length_bytes)
            content += self.data[address].ljust(padded, b"\0")
            position += padded
        table = packed_stripe.pack(parts)
        content[: len(table)] = table
        stripe = stripe_assembly.StripeBuffer(self.pool, self.shape, len(content))
        taken = 0
        for view in stripe.fill_views():
            view[:] = content[taken : taken + len(view)]
            taken += len(view)
        place = await self.groups.write_stripe(
            stripe, extent_address=ids.ExtentAddress(packed_stripe.ADDRESS)
        )
        locations = [
            (
                ids.ExtentAddress(part.extent_address),
                l2p_record.StripeLocation(
                    *place, stripe.chunk_bytes, len(content), part.start_bytes, part.stored_bytes
                ),
            )
            for part in parts
        ]
        stripe.release()
        await self.change(lambda txn: l2p.insert_all(txn, locations))
        self.groups.settle(place)
        return [address for address, _ in locations]

    async def put_small(self, length_bytes: int) -> ids.ExtentAddress:
        """A payload of the log."""
        address = ids.ExtentAddress(self._next_address)
        self._next_address += length_bytes
        data = self.rng.randbytes(length_bytes)

        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
            location = l2p_record.JournalLocation(
                place.segment_id,
                place.offset_bytes,
                place.length_bytes,
                xxhash.xxh3_64_intdigest(data),
            )
            l2p.insert(txn, address, location)

        await self.commits.submit(commit_log.Operation(apply=apply, payload=data))
        return address

    async def seal_segments(self) -> None:
        """Seal every log segment; the next commit opens another one."""
        self.start()
        with self.index.read() as reader:
            found = [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            ]

        def apply(txn: index_port.IndexWriter) -> None:
            for record in found:
                sealed = msgspec.structs.replace(
                    record, state=int(media_records.ZoneSetState.SEALED), writer="gone"
                )
                txn.put(media_records.segment_key(record.segment_id), media_records.pack(sealed))

        await self.change(apply)
        self.start()

    def journal(self, address: ids.ExtentAddress) -> l2p_record.JournalLocation:
        """Where a payload of the log is."""
        with self.index.read() as reader:
            value = reader.get(l2p_record.key(address))
        assert value is not None
        found = l2p_record.unpack(value)
        assert isinstance(found, l2p_record.JournalLocation), found
        return found

    async def forget(self, address: ids.ExtentAddress) -> None:
        """Nothing leads to a payload of the log any more."""
        length = self.journal(address).length_bytes
        await self.change(lambda txn: l2p.punch(txn, ids.Extent(address, length)))

    def segment_of(self, address: ids.ExtentAddress) -> media_records.SegmentRecord:
        """Where a payload is."""
        with self.index.read() as reader:
            found = reader.get(media_records.segment_key(self.journal(address).segment_id))
        assert found is not None
        return media_records.unpack(media_records.SegmentRecord, found)

    async def delete(self, address: ids.ExtentAddress) -> None:
        """Nothing leads to a stripe any more."""
        data = self.data.pop(address)
        await self.change(lambda txn: l2p.punch(txn, ids.Extent(address, len(data))))

    async def seal(self) -> None:
        """Seal every group, and write to new ones from now on."""
        for record in self.records():
            sealed = msgspec.structs.replace(
                record, state=int(media_records.ZoneSetState.SEALED), writer="gone"
            )
            await self.change(
                lambda txn, sealed=sealed: txn.put(  # type: ignore[misc]
                    media_records.group_key(sealed.group_id), media_records.pack(sealed)
                )
            )
        self.start()

    def records(self) -> list[media_records.GroupRecord]:
        """Groups by id."""
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]

    def record(self) -> media_records.GroupRecord:
        """The only group."""
        (found,) = self.records()
        return found

    def location(self, address: ids.ExtentAddress) -> l2p_record.StripeLocation:
        """Where a stripe is."""
        with self.index.read() as reader:
            value = reader.get(l2p_record.key(address))
        assert value is not None
        found = l2p_record.unpack(value)
        assert isinstance(found, l2p_record.StripeLocation), found
        return found

    def zone_roles(self) -> dict[ids.ZoneAddress, zone_header.ZoneRole]:
        """What the index says of each zone that is not free and not of the log."""
        with self.index.read() as reader:
            found = {
                media_records.zone_of_key(key): zone_header.ZoneRole(
                    media_records.unpack(media_records.ZoneRecord, value).role
                )
                for key, value in reader.scan(*media_records.table_range(media_records.ZONES))
            }
        return {
            zone: role for zone, role in found.items() if role is not zone_header.ZoneRole.SEGMENT
        }

    # -- damage ---------------------------------------------------------------------------------

    def add_device(self, number: int, *, domain: str = "") -> ids.DeviceId:
        """A new, empty device; takes effect at the next ``start``."""
        made = identity(number, zone_bytes=self.zone_bytes, domain=domain)
        self.devices[made.device_id] = (
            self.world.add_device(made) if self.world else memory_device.MemoryDevice(made)
        )
        return made.device_id

    def lose(self, device_id: ids.DeviceId) -> None:
        """A device is pulled out."""
        self.media.report_failure(device_id, errors.DeviceGoneError("pulled out"))
        self.devices.pop(device_id, None)

    def content(self, zone: ids.ZoneAddress) -> bytearray:
        """What a zone holds, to be damaged in place."""
        device = self.devices[zone.device_id]
        assert isinstance(device, memory_device.MemoryDevice)
        return device._zones[zone.zone_index]

    def rot(
        self, address: ids.ExtentAddress, shard_index: int, *, inside_bytes: int = 5000
    ) -> None:
        """Flip a byte of a shard of a stripe; the header ends before byte 4096."""
        place = self.location(address)
        record = next(r for r in self.records() if r.group_id == place.group_id)
        zone = media_records.zone_addresses(record.members)[shard_index]
        if self.world is not None:
            offset = place.stripe_offset_bytes + inside_bytes
            self.world.devices[zone.device_id].corrupt(zone.zone_index, offset, 1)
            return
        self.content(zone)[place.stripe_offset_bytes + inside_bytes] ^= 0xFF

    async def queue_repair(
        self, group_id: int, offset_bytes: int, shard_index: int, *, found_ns: int = 0
    ) -> None:
        """As a reader does."""
        record = media_records.RepairRecord(
            group_id, offset_bytes, shard_index, "does not match its checksums", found_ns
        )
        await self.change(
            lambda txn: txn.put(
                media_records.repair_key(group_id, offset_bytes, shard_index),
                media_records.pack(record),
            )
        )

    async def rot_and_queue(self, address: ids.ExtentAddress, shard_index: int) -> None:
        """Damage that a reader has met."""
        self.rot(address, shard_index)
        place = self.location(address)
        await self.queue_repair(place.group_id, place.stripe_offset_bytes, shard_index)

    def repairs(self) -> list[tuple[int, int, int]]:
        """(group, offset, index) of the records that wait."""
        with self.index.read() as reader:
            found = [
                media_records.unpack(media_records.RepairRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.REPAIRS))
            ]
        return [(r.group_id, r.stripe_offset_bytes, r.shard_index) for r in found]

    # -- what must hold -------------------------------------------------------------------------

    def missing_shards(self) -> list[tuple[int, int, int]]:
        """(group, offset, index) of every shard of a mapped stripe that is not whole."""
        wanting = []
        by_id: Mapping[int, media_records.GroupRecord] = {r.group_id: r for r in self.records()}
        for address in self.data:
            place = self.location(address)
            record = by_id[place.group_id]
            for index, zone in enumerate(media_records.zone_addresses(record.members)):
                if not self._is_whole(zone, place, index):
                    wanting.append((place.group_id, place.stripe_offset_bytes, index))
        return wanting

    def _is_whole(
        self, zone: ids.ZoneAddress, place: l2p_record.StripeLocation, index: int
    ) -> bool:
        device = self.devices.get(zone.device_id)
        if device is None:
            return False
        view = memoryview(bytearray(shard.shard_bytes(place.chunk_bytes)))
        device.read(zone.zone_index, place.stripe_offset_bytes, view)
        header_bytes = shard.header_bytes(place.chunk_bytes)
        header = shard.unpack(view[:header_bytes])
        return (
            header is not None
            and (header.group_id, header.stripe_offset_bytes, header.shard_index)
            == (place.group_id, place.stripe_offset_bytes, index)
            and shard.verify_blocks(header, 0, view[header_bytes:])
        )

    async def check_data(self) -> None:
        """Every mapped stripe reads back as it was written."""
        by_id = {record.group_id: record for record in self.records()}
        for address, data in self.data.items():
            place = self.location(address)
            record = by_id[place.group_id]
            members = stripe_reader.GroupMembers(
                geometry.StripeGeometry(record.data_shards, record.parity_shards),
                record.codec_id,
                media_records.zone_addresses(record.members),
            )
            out = memoryview(bytearray(len(data)))
            await self.reader.read(
                stripe_reader.StripeLocation(
                    place.group_id, place.stripe_offset_bytes, place.chunk_bytes, place.data_bytes
                ),
                members,
                place.start_bytes,
                len(data),
                out,
            )
            assert out == data, address

    async def check_zones(self) -> None:
        """Each member zone is the group's, carries its header, and no zone is left over."""
        roles = self.zone_roles()
        for record in self.records():
            zones = media_records.zone_addresses(record.members)
            assert len({zone.device_id for zone in zones}) == len(zones), record
            for position, zone in enumerate(zones):
                assert roles.pop(zone) is zone_header.ZoneRole.GROUP, zone
                assert await group_zones.is_formatted(
                    self.media, record, zone, position=position
                ), zone
        assert set(roles.values()) <= {zone_header.ZoneRole.LEFT}, roles
