"""One writer's object store over devices in memory, without threads and processes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    inline_media,
    isal_codec,
    memory_device,
    memory_index,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import (
    address_lease,
    body_writer,
    commit_log,
    extent_reader,
    group_commit,
    node_store,
    places_in_use,
    stripe_groups,
    stripe_reader,
)
from couchestor_domain import events, geometry, ids, objects, units

WANTED = geometry.StripeGeometry(4, 2)
STRIPE_BYTES = 64 * units.KIB
THRESHOLD_BYTES = 4 * units.KIB
BUCKET = "b"

isal_codec.load_library()


class Body:
    """A request body in memory, which may announce more than it holds."""

    def __init__(self, data: bytes, *, missing_bytes: int = 0, may_end_early: bool = False) -> None:
        self.size_bytes = len(data) + missing_bytes
        self.may_end_early = may_end_early
        self._data = data
        self._position = 0
        self.hold_at: int | None = None
        """Position at which the client stops sending, for ever."""

    async def readinto(self, *views: memoryview) -> int:
        filled = 0
        for view in views:
            if self.hold_at is not None and self._position + len(view) > self.hold_at:
                await asyncio.Event().wait()
            piece = self._data[self._position : self._position + len(view)]
            view[: len(piece)] = piece
            self._position += len(piece)
            filled += len(piece)
        return filled

    async def finish(self) -> objects.BodyDigests:
        return objects.BodyDigests(etag=hashlib.md5(self._data, usedforsecurity=False).hexdigest())


class StripeNode:
    """Six devices, an index, and one writer after another over them."""

    def __init__(self, *, zone_bytes: int = units.MIB, zone_count: int = 24) -> None:
        self.devices = {}
        for number in range(6):
            identity = device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=zone_count,
                zone_capacity_bytes=zone_bytes,
                joined_epoch=1,
            )
            self.devices[identity.device_id] = memory_device.MemoryDevice(identity)
        self.index = memory_index.MemoryIndex()
        self.pool = buffers.BufferPool(32 * units.MIB)
        self.published: list[events.DomainEvent] = []
        self.damage: list[tuple[int, int, int, str]] = []
        self.hold_commits: asyncio.Event | None = None
        self.now_seconds = 1000.0
        self.start()

    def start(self, writer: str = "worker-0") -> None:
        """A new life of a writer, over what earlier ones left."""
        self.media = inline_media.InlineMedia(self.devices, lambda device_id, error: None)
        log = commit_log.CommitLog(
            writer=writer,
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=3,
            publisher=self,
        )

        async def run_commit(gather: commit_log.Gather) -> None:
            if self.hold_commits is not None:
                await self.hold_commits.wait()
            log.commit_gathered(gather)

        self.commits = group_commit.GroupCommit(run_commit)
        self.groups = stripe_groups.StripeGroups(
            writer=writer,
            wanted=WANTED,
            open_groups_max=1,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose("rs", shape),
            submit=self.commits.submit,
            run_codec=_run,
            run_blocking=_run,
            publisher=self,
        )
        self.bodies = body_writer.BodyWriter(
            groups=self.groups,
            pool=self.pool,
            stripe_bytes=STRIPE_BYTES,
            journal_threshold_bytes=THRESHOLD_BYTES,
            in_flight_bytes_max=units.MIB,
            lease_address=address_lease.AddressLease(
                self.commits.submit, length_bytes=units.GIB
            ).take,
        )
        stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self,
            on_damage=lambda *found: self.damage.append(found),
        )
        self.places_in_use = places_in_use.PlacesInUse(forgotten_seconds=60.0)
        self.extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=stripes,
            pool=self.pool,
            clock=self,
            in_use=self.places_in_use,
        )
        self.store = node_store.NodeStore(
            index=self.index,
            commits=self.commits,
            bodies=self.bodies,
            extents=self.extents,
            clock=self,
        )

    def publish(self, event: events.DomainEvent) -> None:
        """Keep it."""
        self.published.append(event)

    def monotonic_seconds(self) -> float:
        """As the test sets it."""
        return self.now_seconds

    def now_ns(self) -> int:
        """Wall clock."""
        return 1

    async def put(self, key: str, data: bytes) -> objects.ObjectRecord:
        """An acknowledged object."""
        return await self.store.put_object(objects.PutRequest(bucket=BUCKET, key=key), Body(data))

    async def make_bucket(self) -> None:
        """Before the first ``put``."""
        await self.store.create_bucket(name=BUCKET, owner="o", region="r")

    def group_records(self) -> list[media_records.GroupRecord]:
        """Every group the index lists, the oldest first."""
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]

    def segment_records(self) -> list[media_records.SegmentRecord]:
        """Every log segment the index lists, the oldest first."""
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            ]

    async def settled(self) -> None:
        """Wait for what goes on without a request."""
        await self.commits.drain()
        await self.groups.drain()


async def _run(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
