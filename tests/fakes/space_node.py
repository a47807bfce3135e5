"""A node over devices in memory: a worker that serves, and the parts of background work."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    inline_media,
    isal_codec,
    memory_device,
    memory_index,
)
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import (
    address_lease,
    body_writer,
    commit_log,
    compression,
    destage,
    evacuation,
    extent_reader,
    group_commit,
    group_source,
    node_store,
    payload_reader,
    reclaim,
    relocation,
    segment_source,
    stripe_groups,
    stripe_reader,
)
from couchestor_daemon.services.catalogue import l2p, liveness
from couchestor_domain import errors, events, geometry, ids, objects, units

BUCKET = "photos"

isal_codec.load_library()

E = TypeVar("E", bound=events.DomainEvent)


class TroubledDevice(memory_device.MemoryDevice):
    """Can be told to fail its writes, or to report writes it does not make."""

    def __init__(self, identity: device_port.DeviceIdentity) -> None:
        super().__init__(identity)
        self.failure: errors.DeviceError | None = None
        self.lost_writes_count = 0
        """How many of the next writes of more than a block are lost."""

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        if self.failure is not None:
            raise self.failure
        if self.lost_writes_count and len(data) > units.BLOCK_BYTES:
            self.lost_writes_count -= 1
            data = memoryview(bytes(len(data)))
        super().write(zone, offset_bytes, data, durable=durable)

    def retire(self) -> None:
        """Nothing new on this device from the next start on."""
        self.write_identity(dataclasses.replace(self.identity, retiring=True))

    def rot(self, zone: int, offset_bytes: int) -> None:
        """Change one byte."""
        self._zones[ids.ZoneIndex(zone)][offset_bytes] ^= 0xFF


class Body:
    """A request body."""

    may_end_early = False

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._data = data
        self._position = 0

    async def readinto(self, *views: memoryview) -> int:
        filled = 0
        for view in views:
            view[:] = self._data[self._position : self._position + len(view)]
            self._position += len(view)
            filled += len(view)
        return filled

    async def finish(self) -> objects.BodyDigests:
        return objects.BodyDigests(etag=hashlib.md5(self._data, usedforsecurity=False).hexdigest())


class SpaceNode:
    """Everything on one event loop, commits in place; made inside a running loop."""

    def __init__(
        self,
        *,
        coding: geometry.StripeGeometry | None = None,
        devices_count: int = 6,
        zones_count: int = 32,
        zone_bytes: int = units.MIB,
        stripe_bytes: int = 256 * units.KIB,
        journal_threshold_bytes: int = 64 * units.KIB,
        reserve_zones_count: int = 0,
        reserve_share_count: int = 0,
    ) -> None:
        self.coding = coding or geometry.StripeGeometry(4, 2)
        self.stripe_bytes = stripe_bytes
        self._threshold_bytes = journal_threshold_bytes
        self._reserve_zones_count = reserve_zones_count
        self._reserve_share_count = reserve_share_count
        self.devices = {}
        for number in range(devices_count):
            identity = device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=zones_count,
                zone_capacity_bytes=zone_bytes,
                joined_epoch=1,
            )
            self.devices[identity.device_id] = TroubledDevice(identity)
        self.index = memory_index.MemoryIndex()
        self.pool = buffers.BufferPool(32 * units.MIB)
        self.published: list[events.DomainEvent] = []
        self.paced_bytes = 0
        self.before_switch: Callable[[], None] = lambda: None
        """Called when a commit of the maintenance process is asked for."""
        self.damage: list[tuple[int, int, int]] = []
        self.seconds = 1000.0
        self._now_ns = 1_700_000_000 * units.NS_PER_SECOND
        self.start()

    def start(self, *, away: Collection[ids.DeviceId] = ()) -> None:
        """The parts of new processes, over what is on the devices that are not away."""
        present = {found: device for found, device in self.devices.items() if found not in away}
        self.media = inline_media.InlineMedia(present, lambda device_id, error: None)
        self.worker = self._commits("worker-0")
        self.maintenance = self._commits("maintenance")
        self.stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self,
            on_damage=lambda group, offset, shard, _: self.damage.append((group, offset, shard)),
        )
        self.extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=self.stripes,
            pool=self.pool,
            clock=self,
        )
        lease = address_lease.AddressLease(self.worker.submit, length_bytes=units.TIB)
        bodies = body_writer.BodyWriter(
            groups=self._groups("worker-0", self.worker),
            pool=self.pool,
            stripe_bytes=self.stripe_bytes,
            journal_threshold_bytes=self._threshold_bytes,
            in_flight_bytes_max=8 * units.MIB,
            lease_address=lease.take,
        )
        self.store = node_store.NodeStore(
            index=self.index,
            commits=self.worker,
            bodies=bodies,
            extents=self.extents,
            clock=self,
            part_bytes_min=1,
        )
        self.compression = compression.Compression(saving_percent=30)
        self.payloads = payload_reader.PayloadReader(
            index=self.index, media=self.media, stripes=self.stripes
        )
        self.groups = self._groups(
            "maintenance", self.maintenance, reserve_share_count=self._reserve_share_count
        )
        self.relocation = relocation.Relocation(
            groups=self.groups,
            index=self.index,
            payloads=self.payloads,
            stripes=self.stripes,
            pool=self.pool,
            stripe_bytes=self.stripe_bytes,
            squeeze=self.compression,
            run_codec=self.run,
            submit=self.submit,
            pace=self.pace,
            publisher=self,
        )

    # -- ports --------------------------------------------------------------------------------

    def publish(self, event: events.DomainEvent) -> None:
        self.published.append(event)

    def now_ns(self) -> int:
        self._now_ns += 1_000_000
        return self._now_ns

    def monotonic_seconds(self) -> float:
        """Passes when a test says so."""
        return self.seconds

    async def pace(self, byte_count: int) -> None:
        self.paced_bytes += byte_count

    async def submit(self, operation: commit_log.Operation) -> object:
        self.before_switch()
        return await self.maintenance.submit(operation)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def _commits(self, writer: str) -> group_commit.GroupCommit:
        log = commit_log.CommitLog(
            writer=writer,
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=self.coding.parity_shards + 1,
            reserve_zones_count=self._reserve_zones_count,
            publisher=self,
        )

        async def run_commit(gather: commit_log.Gather) -> None:
            log.commit_gathered(gather)

        return group_commit.GroupCommit(run_commit)

    def _groups(
        self, writer: str, commits: group_commit.GroupCommit, *, reserve_share_count: int = 0
    ) -> stripe_groups.StripeGroups:
        return stripe_groups.StripeGroups(
            writer=writer,
            wanted=self.coding,
            open_groups_max=1,
            reserve_zones_count=self._reserve_zones_count,
            reserve_share_count=reserve_share_count,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose("rs", shape),
            submit=commits.submit,
            run_codec=self.run,
            run_blocking=self.run,
            publisher=self,
        )

    # -- background work ------------------------------------------------------------------------

    def destage(
        self,
        limits: destage.DestageLimits,
        *,
        should_empty: Callable[[], bool] = lambda: False,
    ) -> destage.Destage:
        """Ready to step."""
        return destage.Destage(
            index=self.index,
            media=self.media,
            emptying=evacuation.Evacuation(self.relocation, stripe_bytes=self.stripe_bytes),
            source=lambda record: segment_source.SegmentSource(
                record,
                index=self.index,
                media=self.media,
                run_blocking=self.run,
                pace=self.pace,
            ),
            limits=limits,
            clock=self,
            should_empty=should_empty,
        )

    def reclaim(
        self,
        limits: reclaim.ReclaimLimits,
        *,
        must_move: reclaim.MustMove = lambda reader, record: False,
        stranded: reclaim.Strandings = lambda reader, records: {},
        report: Callable[[reclaim.StrandedProgress], None] = lambda progress: None,
    ) -> reclaim.Reclaim:
        """Ready to step."""
        return reclaim.Reclaim(
            index=self.index,
            media=self.media,
            emptying=evacuation.Evacuation(self.relocation, stripe_bytes=self.stripe_bytes),
            source=lambda record: group_source.GroupSource(
                record,
                index=self.index,
                media=self.media,
                stripes=self.stripes,
                run_blocking=self.run,
                pace=self.pace,
            ),
            writer="maintenance",
            must_move=must_move,
            stranded=stranded,
            wanted=self.coding,
            reserve_zones_count=self._reserve_zones_count,
            limits=limits,
            clock=self,
            report=report,
        )

    # -- what clients do ----------------------------------------------------------------------

    async def create_bucket(self) -> None:
        await self.store.create_bucket(name=BUCKET, owner="o", region="r")

    async def put(self, key: str, data: bytes) -> None:
        await self.store.put_object(
            objects.PutRequest(bucket=BUCKET, key=key, owner="o"), Body(data)
        )

    async def get(self, key: str) -> bytes:
        record = await self.store.get_object(bucket=BUCKET, key=key)
        return bytes(await self.store.fetch(record, start_bytes=0, length_bytes=record.size_bytes))

    async def delete(self, key: str) -> None:
        await self.store.delete_object(bucket=BUCKET, key=key, conditions=objects.NO_CONDITIONS)

    # -- what tests look at -------------------------------------------------------------------

    def entries(self) -> list[l2p.Entry]:
        """The whole L2P, by address."""
        with self.index.read() as reader:
            return [
                l2p.Entry(l2p_record.address_of(key), l2p_record.unpack(value))
                for key, value in reader.scan(*media_records.table_range(l2p_record.TABLE))
            ]

    def journaled(self) -> list[l2p.Entry]:
        """Entries whose bytes are in the log."""
        return [
            entry
            for entry in self.entries()
            if isinstance(entry.location, l2p_record.JournalLocation)
        ]

    def live_bytes(self, group_id: int) -> int:
        """Of a group."""
        with self.index.read() as reader:
            return liveness.group_bytes(reader, group_id)

    def segments(self) -> list[media_records.SegmentRecord]:
        """By id."""
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            ]

    def group_records(self) -> list[media_records.GroupRecord]:
        """By id."""
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]

    def check_live_bytes(self) -> None:
        """The counters say what the map says."""
        expected: dict[bytes, int] = {}
        for _, location in self.entries():
            owner = (
                b"ls" + media_records.U64.pack(location.segment_id)
                if isinstance(location, l2p_record.JournalLocation)
                else b"lg" + media_records.U64.pack(location.group_id)
            )
            expected[owner] = expected.get(owner, 0) + location.stored_bytes
        with self.index.read() as reader:
            found = {
                key: media_records.U64.unpack(value)[0] for key, value in reader.scan(b"l", b"m")
            }
        assert found == expected

    def events_of(self, kind: type[E]) -> Iterator[E]:
        """What was published of one kind."""
        return (event for event in self.published if isinstance(event, kind))
