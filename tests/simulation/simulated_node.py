"""What outlives the processes of a simulated node, and how a start uses it."""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable, Sequence

from tests.simulation import mortal_index, node_events, node_shape, shuffled_media, stalled_commands

from couchestor_daemon import buffers
from couchestor_daemon.adapters import memory_index, simulated_device
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    commit_log,
    places_in_use,
    recovery_table,
    replay,
    writer_slots,
)
from couchestor_domain import ids, units


class IndexLoss(enum.Enum):
    """What a crash leaves of the live index."""

    KEPT = "kept"
    LOST = "lost"


class SimulatedNode:
    """The devices, the index and the marks that outlive a process, and how a start uses them."""

    def __init__(self, seed: str, shape: node_shape.Shape) -> None:
        self.shape = shape
        self._rng = random.Random(f"{seed}/node")
        self.happened: Callable[[str], None] = lambda what: None
        """Told what background work has done."""
        self._clock_ns = 1_700_000_000 * units.NS_PER_SECOND
        self.world = simulated_device.SimulatedWorld(self._rng.getrandbits(64))
        self.stalls = stalled_commands.Stalls(seed, self.world, lambda what: self.happened(what))
        self.index = memory_index.MemoryIndex()
        self._index_complete = False
        self._last_stop = recovery_table.LastStop.CRASH_OTHER_BOOT
        self.places_in_use: dict[int, places_in_use.PlacesInUse] = {}
        """What the reads of each worker go by; a later life has another clock and others."""
        self.dead: set[ids.DeviceId] = set()
        """Devices that are not there at this start."""
        for number in range(shape.devices_count):
            self.join(number, label=f"d{number}")

    def join(self, number: int, *, label: str = "") -> str:
        """A new, empty device, from the next start on; returns its label."""
        made = label or f"n{number}"
        self.world.add_device(
            device_port.DeviceIdentity(
                node_id=node_shape.NODE_ID,
                device_id=ids.DeviceId(f"{number:032x}"),
                label=made,
                failure_domain=made,
                zone_count=self.shape.zone_count,
                zone_capacity_bytes=self.shape.zone_bytes,
                joined_epoch=1,
            )
        )
        return made

    def draw_bits(self) -> int:
        """64 random bits: seeds of segments, names of uploads."""
        return self._rng.getrandbits(64)

    def in_any_order(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> Sequence[media_port.ZoneWrite]:
        """The replicas of a batch in an order drawn anew."""
        return self._rng.sample(writes, len(writes))

    def now_ns(self) -> int:
        """Wall clock: moves on by a millisecond every time it is looked at."""
        self._clock_ns += 1_000_000
        return self._clock_ns

    def present_devices(self) -> dict[ids.DeviceId, simulated_device.SimulatedDevice]:
        """Devices that answer."""
        return {
            device_id: device
            for device_id, device in self.world.devices.items()
            if device_id not in self.dead
        }

    def lose(self, *, power_loss: bool, index: IndexLoss) -> None:
        """What the end of a life leaves: of the devices as the world says, of the index all or
        nothing."""
        self.world.restart(power_loss=power_loss)
        self.stalls.run_ended(power_loss=power_loss)
        self.places_in_use.clear()
        if power_loss:
            self._last_stop = recovery_table.LastStop.CRASH_OTHER_BOOT
        if power_loss or index is IndexLoss.LOST:
            # After power loss the unsynced index is whatever; a node that used it would show.
            self.index = memory_index.MemoryIndex()
            self._index_complete = self._index_complete and index is IndexLoss.KEPT

    def prepare(self) -> recovery_table.Action:
        """What ``app.node.prepare`` does: decide from the table, rebuild if needed."""
        devices = self.present_devices()
        epoch = 1 + max(device.identity.joined_epoch for device in self.world.devices.values())
        for device in devices.values():
            device.write_identity(dataclasses.replace(device.identity, joined_epoch=epoch))
        action = recovery_table.decide(
            index=recovery_table.IndexState.PRESENT
            if self._index_complete
            else recovery_table.IndexState.ABSENT,
            last_stop=self._last_stop,
            log_present=replay.log_present(devices),
            recover_asked=False,
        )
        if action is recovery_table.Action.REFUSE:
            raise AssertionError("the node refuses to start")
        if action is not recovery_table.Action.USE:
            self._index_complete = False
            self.index = memory_index.MemoryIndex()
            index = mortal_index.MortalIndex(self.world, self.index)
            log = commit_log.CommitLog(
                writer=writer_slots.RECOVERY,
                index=index,
                media=shuffled_media.SimulatedMedia(devices, self.stalls, self.in_any_order),
                pool=buffers.BufferPool(node_shape.POOL_BYTES),
                replicas_count=self.shape.replicas_count,
                reserve_zones_count=self.shape.reserve_zones_count,
                publisher=node_events.Silence(),
                draw_seed=self.draw_bits,
            )
            report = replay.rebuild(index, devices, log)
            if report.checkpoint_sequence:
                self.happened(f"from-checkpoint {report.checkpoint_sequence}")
            self._index_complete = True
        self._last_stop = recovery_table.LastStop.CRASH_SAME_BOOT
        return action
