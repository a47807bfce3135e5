"""A process of a simulated node: ``app.node.Node`` on one loop.

Everything that runs on a thread in the daemon runs here as a callback of its own, so that what
threads interleave the virtual loop interleaves. The worker processes share the index and the
devices and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.simulation import (
    mortal_index,
    node_events,
    node_shape,
    shuffled_media,
    simulated_node,
    virtual_loop,
)

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    address_lease,
    body_writer,
    commit_log,
    extent_reader,
    group_commit,
    hedging,
    node_store,
    places_in_use,
    room_outlook,
    room_wait,
    stripe_groups,
    stripe_reader,
    writer_slots,
)
from couchestor_domain import errors, units


class Process:
    """One process of the node: ``app.node.Node`` without threads.

    Args:
        writer: Its slot.
        reserve_share_count: Zones that its stripe groups may take out of the reserve.
    """

    def __init__(
        self, node: simulated_node.SimulatedNode, writer: str, *, reserve_share_count: int = 0
    ) -> None:
        self._node = node
        self.name = writer
        self._writer = writer
        self._shape = node.shape
        self.index = mortal_index.MortalIndex(node.world, node.index, self._die_if_told)
        self.dies_at_commit = False
        """Whether this process dies at its next commit, before the index shows the batch."""
        self.media = shuffled_media.SimulatedMedia(
            node.present_devices(), node.stalls, node.in_any_order
        )
        self._pool = buffers.BufferPool(node_shape.POOL_BYTES)
        self._log = commit_log.CommitLog(
            writer=self._writer,
            index=self.index,
            media=self.media,
            pool=self._pool,
            replicas_count=self._shape.replicas_count,
            reserve_zones_count=self._shape.reserve_zones_count,
            publisher=node_events.Silence(),
            draw_seed=node.draw_bits,
        )
        self._room = room_wait.RoomWait(
            self._room_outlook,
            clock=virtual_loop.LoopClock(),
            seconds_max=node_shape.ROOM_WAIT_SECONDS,
            poll_seconds=node_shape.ROOM_POLL_SECONDS,
        )
        room = None if reserve_share_count else self._room
        self.commits = group_commit.GroupCommit(self._run_commit, room)
        self.groups = stripe_groups.StripeGroups(
            writer=self._writer,
            wanted=self._shape.coding,
            open_groups_max=node_shape.OPEN_GROUPS_MAX,
            reserve_zones_count=self._shape.reserve_zones_count,
            reserve_share_count=reserve_share_count,
            media=self.media,
            index=self.index,
            pool=self._pool,
            choose_codec=lambda found: codec_choice.choose("rs", found),
            submit=self.commits.submit,
            run_codec=self._run_inline,
            run_blocking=self._run_inline,
            publisher=node_events.Silence(),
            room=room,
        )
        self.stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=node_events.Silence(),
            on_damage=self._queue_repair,
            run_codec=self._run_inline,
            slow_reads=hedging.Hedging(asyncio.get_running_loop().time),
        )
        self.death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when this process has died alone."""

    def die(self) -> None:
        """End this process alone, where it stands."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        loop.kill(self)
        # It is gone only when its last command is; its slot is empty until then.
        self._node.stalls.process_ended(self.media)
        self.death.set_result(None)

    def _die_if_told(self) -> None:
        if self.dies_at_commit:
            self.die()
            raise mortal_index.WorkerCrash

    async def _room_outlook(self) -> room_outlook.RoomOutlook:
        with self.index.read() as reader:
            return room_outlook.look(reader, zone_capacity_bytes=self._shape.zone_bytes)

    async def _run_commit(self, gather: commit_log.Gather) -> None:
        await asyncio.sleep(0)
        self._log.commit_gathered(gather)
        await asyncio.sleep(0)

    async def _run_inline(self, function: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        result = function(*args)
        await asyncio.sleep(0)
        return result

    def _queue_repair(self, group_id: int, offset: int, shard_index: int, reason: str) -> None:
        record = media_records.pack(
            media_records.RepairRecord(group_id, offset, shard_index, reason, 0)
        )
        key = media_records.repair_key(group_id, offset, shard_index)
        operation = commit_log.Operation(apply=lambda txn, _: txn.put(key, record))
        asyncio.get_running_loop().create_task(self._submit_repair(operation))

    async def _submit_repair(self, operation: commit_log.Operation) -> None:
        try:
            await self.commits.submit(operation)
        except errors.CouchestorError:
            return  # The next read queues it again.


class Worker(Process):
    """One serving process."""

    def __init__(self, node: simulated_node.SimulatedNode, slot: int) -> None:
        super().__init__(node, writer_slots.worker(slot))
        # Of a worker that died alone nothing is known to the new one: its reads are over.
        node.places_in_use[slot] = places_in_use.PlacesInUse(
            forgotten_seconds=node_shape.GRACE_SECONDS
        )
        self.slot = slot
        self.store: node_store.NodeStore
        """Since ``start``."""

    async def start(self) -> bool:
        """Open the store; whether a commit of this start has fenced what went before."""
        lease = address_lease.AddressLease(self.commits.submit, length_bytes=node_shape.LEASE_BYTES)
        try:
            await lease.renew()
            fenced = True
        except (errors.StoreFullError, errors.StoreReadOnlyError):
            fenced = False
        bodies = body_writer.BodyWriter(
            groups=self.groups,
            pool=self._pool,
            stripe_bytes=self._shape.stripe_bytes,
            journal_threshold_bytes=self._shape.journal_threshold_bytes,
            in_flight_bytes_max=256 * units.KIB,
            lease_address=lease.take,
        )
        extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=self.stripes,
            pool=self._pool,
            clock=virtual_loop.LoopClock(),
            places_kept_seconds=node_shape.PLACES_KEPT_SECONDS,
            in_use=self._node.places_in_use[self.slot],
        )
        self.store = node_store.NodeStore(
            index=self.index,
            commits=self.commits,
            bodies=bodies,
            extents=extents,
            clock=self._node,
            part_bytes_min=1,
            draw_upload_id=lambda: f"{self._node.draw_bits():016x}",
        )
        return fenced
