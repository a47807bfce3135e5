"""Which faults a simulated node meets, and the bounds that make surviving them a promise.

At any moment the devices that are dead, have lost bytes, are unplugged or fail commands are at most
m together. Whether there is room is not bounded: any device may be full at any time, which may cost
writes their success but nothing else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Final

from tests.simulation import node_shape, simulated_node, stalled_commands

from couchestor_daemon.adapters import simulated_device
from couchestor_domain import geometry, ids, units

LIFE_SECONDS_MEAN: Final = 20e-3
JOINED_MAX: Final = 2
JOIN_RATIO = 0.12
RETIRE_RATIO = 0.2
ROT_BYTES_MAX: Final = 3 * units.BLOCK_BYTES


def choose_shape(rng: random.Random) -> node_shape.Shape:
    """A small node."""
    coding, devices_count = rng.choice(
        [
            (geometry.StripeGeometry(4, 2), 6),
            (geometry.StripeGeometry(4, 2), 7),
            (geometry.StripeGeometry(3, 2), 6),
            (geometry.StripeGeometry(2, 1), 4),
        ]
    )
    zone_count = rng.choice([24, 64, 128])
    return node_shape.Shape(
        coding=coding,
        devices_count=devices_count,
        zone_count=zone_count,
        zone_bytes=rng.choice([96, 128, 192, 256]) * units.KIB,
        stripe_bytes=rng.choice([16, 32, 64]) * units.KIB,
        journal_threshold_bytes=rng.choice([4, 6, 8]) * units.KIB,
        # Where zones run out a start without a reserve has no room for its last batch.
        reserve_zones_count=max(rng.choice([0, 3]), 3 if zone_count == 24 else 0),
    )


class FaultPlan:
    """Chooses faults within the bounds and keeps the account of them."""

    def __init__(self, seed: str, node: simulated_node.SimulatedNode) -> None:
        self._rng = random.Random(f"{seed}/faults")
        self._membership_rng = random.Random(f"{seed}/membership")
        self._joined_count = 0
        self._node = node
        self._faults_max = node.shape.coding.parity_shards
        self.damaged: set[ids.DeviceId] = set()
        """Dead for good, or bytes of theirs are lost: until the end of the run."""
        self.away: set[ids.DeviceId] = set()
        """Not there in this life, whole when they come back."""
        self.failing: set[ids.DeviceId] = set()
        """Unplugged or failing commands since this life began."""
        self._takes_room = False
        self.room_is_short = False
        """Whether some device is or will be full in this life."""
        self.log: list[str] = []

    @property
    def unreliable(self) -> set[ids.DeviceId]:
        """Devices that need not hold what they should."""
        return self.damaged | self.away | self.failing

    def between_lives(self) -> None:
        """Faults while no process runs: devices return or stay away, die, and rot."""
        rng, devices = self._rng, self._node.world.devices
        for device in devices.values():
            for arm in (device.fail_next_read, device.fail_next_write, device.fail_next_flush):
                arm(0)
            device.full = device.full and rng.random() < 0.3
        for device_id in sorted(self.away | self.failing):
            fate = rng.choice(["back", "back", "away", "dead"])
            self.log.append(f"{fate} {devices[device_id].identity.label}")
            if fate == "dead":
                self.damaged.add(device_id)
            if fate == "back" or device_id in self._node.dead:
                devices[device_id].revive()
            self.away.discard(device_id)
            if fate == "away":
                self.away.add(device_id)
            if fate == "back":
                self._node.dead.discard(device_id)
            else:
                devices[device_id].kill()
                self._node.dead.add(device_id)
        self.failing.clear()
        if rng.random() < 0.15:
            self.bury_one()
        if rng.random() < 0.2:
            device_id = self._victim()
            self.damaged.add(device_id)
            for _ in range(rng.randrange(1, 8)):
                self._rot(devices[device_id])

    def change_membership(self) -> None:
        """Between lives: a device joins, is to be emptied, or stays after all; one at a time is to
        be emptied, so that enough others are left for new groups and the log."""
        rng = self._membership_rng
        devices = self._node.world.devices
        if rng.random() < JOIN_RATIO and self._joined_count < JOINED_MAX:
            label = self._node.join(50 + self._joined_count)
            self._joined_count += 1
            self.log.append(f"joins {label}")
        present = [each for each in sorted(devices) if each not in self._node.dead]
        device = devices[rng.choice(present)]
        retiring = [each for each in devices.values() if each.identity.retiring]
        if retiring and rng.random() < 0.2:
            device = retiring[0]
            if device.identity.device_id in self._node.dead:
                return
            self.log.append(f"stays {device.identity.label}")
            device.write_identity(dataclasses.replace(device.identity, retiring=False))
        elif not retiring and rng.random() < RETIRE_RATIO:
            self.log.append(f"retires {device.identity.label}")
            device.write_identity(dataclasses.replace(device.identity, retiring=True))

    def bury_one(self) -> None:
        """A device dies for good, between lives; within the bounds, so maybe one that is dead."""
        device_id = self._victim()
        device = self._node.world.devices[device_id]
        self.log.append(f"dies {device.identity.label}")
        self.damaged.add(device_id)
        device.kill()
        self._node.dead.add(device_id)

    def rest(self) -> None:
        """From now on nothing fails. Who was away is back; who is dead stays dead."""
        devices = self._node.world.devices
        for device in devices.values():
            for arm in (device.fail_next_read, device.fail_next_write, device.fail_next_flush):
                arm(0)
        for device_id in (self.away | self.failing) - self.damaged:
            devices[device_id].revive()
            self._node.dead.discard(device_id)
        self.away.clear()
        self.failing.clear()
        self._takes_room = self.room_is_short = False
        self.make_room()

    def before_a_life(self) -> None:
        """Decide what this life may meet."""
        self._takes_room = self._rng.random() < 0.2
        full = any(device.full for device in self._node.world.devices.values())
        self.room_is_short = full or self._takes_room

    def make_room(self) -> None:
        """Somebody frees the devices' space."""
        self.log.append("room again")
        for device in self._node.world.devices.values():
            device.full = False

    async def during_a_life(self) -> None:
        """Let faults happen at random moments until cancelled."""
        rng, devices = self._rng, self._node.world.devices
        while True:
            await asyncio.sleep(rng.expovariate(1 / LIFE_SECONDS_MEAN))
            if self._takes_room and rng.random() < 0.5:
                for device in devices.values():
                    device.full = rng.random() < rng.choice([0.0, 0.2, 0.5, 1.0])
                full = [device.identity.label for device in devices.values() if device.full]
                self.log.append(f"full {full}")
                continue
            device_id = self._victim()
            if device_id in self._node.dead:
                continue
            device = devices[device_id]
            fault = rng.choice(["unplug", "write", "flush", "read", "misdirect", "hang", "hang"])
            self.log.append(f"{fault} {device.identity.label}")
            (self.damaged if fault == "misdirect" else self.failing).add(device_id)
            match fault:
                case "unplug":
                    device.kill()
                case "write":
                    device.fail_next_write(rng.randrange(1, 3))
                case "flush":
                    device.fail_next_flush()
                case "read":
                    device.fail_next_read(rng.randrange(1, 4))
                case "hang":
                    shortest = stalled_commands.DEADLINE_SECONDS / 2
                    self._node.stalls.arm(device_id, rng.choice([1, 4]) * shortest)
                case _:
                    device.misdirect_next_write()

    def _victim(self) -> ids.DeviceId:
        """A device that may fail without leaving the bounds; one that did already is as good."""
        candidates = sorted(self._node.world.devices)
        if len(self.unreliable) >= self._faults_max:
            candidates = sorted(self.unreliable)
        return self._rng.choice(candidates)

    def _rot(self, device: simulated_device.SimulatedDevice) -> None:
        if device.identity.device_id in self._node.dead:
            return
        written = [report for report in device.report() if report.write_pointer_bytes]
        if written:
            report = self._rng.choice(written)
            start = self._rng.randrange(report.write_pointer_bytes)
            length = self._rng.randrange(1, ROT_BYTES_MAX)
            self.log.append(f"rot {device.identity.label} {report.zone_index}+{start}")
            device.corrupt(report.zone_index, start, length)
