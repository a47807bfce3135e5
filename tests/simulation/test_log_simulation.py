"""The log under crashes: what was answered is there, what was in flight is whole or absent.

Every seed runs several lives of a node on simulated devices. A life ends at a random command, as
a process crash or a power loss, sometimes with devices dying. After a power loss the
index is rebuilt from the log alone. COUCHESTOR_SIMULATION_SEEDS sets the number of seeds.
"""

from __future__ import annotations

import os
import random

import pytest
import xxhash

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, replay
from couchestor_daemon.services.catalogue import l2p, liveness
from couchestor_domain import errors, events, ids, units

SEEDS_COUNT = int(os.environ.get("COUCHESTOR_SIMULATION_SEEDS", "400"))
SEEDS_PER_TEST = 50
DEVICES_COUNT = 5
REPLICAS_COUNT = 3
KEYS_COUNT = 8


class Silence:
    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


class Life:
    """A node, its crashes, and the oracle of what it answered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = simulated_device.SimulatedWorld(seed)
        for number in range(DEVICES_COUNT):
            self.world.add_device(
                device_port.DeviceIdentity(
                    node_id=ids.NodeId("a" * 32),
                    device_id=ids.DeviceId(f"{number:032x}"),
                    label=f"d{number}",
                    failure_domain=f"d{number}",
                    zone_count=48,
                    zone_capacity_bytes=64 * units.KIB,
                    joined_epoch=1,
                )
            )
        self.index = memory_index.MemoryIndex()
        self.answered: dict[bytes, bytes | None] = {}
        self.in_flight: dict[bytes, bytes | None] = {}
        self.dead: set[ids.DeviceId] = set()
        self.next_address = 1

    def logs(self) -> list[commit_log.CommitLog]:
        self.alive = self.alive_devices()
        self.media = inline_media.InlineMedia(self.alive, lambda device_id, error: None)
        pool = buffers.BufferPool(8 * units.MIB)
        return [
            commit_log.CommitLog(
                writer=f"worker-{slot}",
                index=self.index,
                media=self.media,
                pool=pool,
                replicas_count=REPLICAS_COUNT,
                publisher=Silence(),
                draw_seed=lambda: self.rng.getrandbits(64),
            )
            for slot in range(2)
        ]

    def alive_devices(self) -> dict[ids.DeviceId, simulated_device.SimulatedDevice]:
        return {
            device_id: device
            for device_id, device in self.world.devices.items()
            if device_id not in self.dead
        }

    def operation(self, key: bytes, value: bytes | None) -> commit_log.Operation:
        address = ids.ExtentAddress(self.next_address)
        self.next_address += 1

        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
            if value is None:
                txn.delete(b"o" + key)
                return
            location = l2p_record.JournalLocation(
                place.segment_id, place.offset_bytes, place.length_bytes,
                xxhash.xxh3_64_intdigest(value),
            )  # fmt: skip
            l2p.insert(txn, address, location)
            txn.put(b"o" + key, l2p_record.key(address))

        return commit_log.Operation(apply=apply, payload=value or b"")

    def run_until_crash(self) -> None:
        # Adopting what an earlier life left open can crash too.
        self.world.crash_at = self.world.commands_count + self.rng.randrange(1, 60)
        logs = self.logs()
        while True:
            changes = {
                b"%d" % self.rng.randrange(KEYS_COUNT): self.rng.choice(
                    [None, self.rng.randbytes(self.rng.randrange(9000))]
                )
                for _ in range(self.rng.randrange(1, 4))
            }
            operations = [self.operation(key, value) for key, value in changes.items()]
            self.in_flight = changes
            self.rng.choice(logs).commit(operations)
            for operation in operations:
                if operation.error is not None:
                    raise operation.error
            self.answered.update(changes)
            self.in_flight = {}

    def read(self, key: bytes) -> bytes | None:
        with self.index.read() as reader:
            where = reader.get(b"o" + key)
            if where is None:
                return None
            value = reader.get(where)
            assert value is not None, "an object without its location"
            location = l2p_record.unpack(value)
            assert isinstance(location, l2p_record.JournalLocation)
            record = reader.get(media_records.segment_key(location.segment_id))
        assert record is not None, "a location in a segment the index does not list"
        segment = media_records.unpack(media_records.SegmentRecord, record)
        copies = 0
        payload = b""
        for zone in media_records.zone_addresses(segment.members):
            if zone.device_id in self.dead:
                continue
            start = units.align_down(location.offset_bytes, units.BLOCK_BYTES)
            end = units.align_up(location.offset_bytes + location.length_bytes, units.BLOCK_BYTES)
            window = memoryview(bytearray(end - start))
            self.alive[zone.device_id].read(zone.zone_index, start, window)
            inside = location.offset_bytes - start
            found = bytes(window[inside : inside + location.length_bytes])
            if xxhash.xxh3_64_intdigest(found) == location.checksum:
                copies += 1
                payload = found
        expected = sum(
            zone.device_id not in self.dead
            for zone in media_records.zone_addresses(segment.members)
        )
        assert copies == expected > 0, f"{copies} of {expected} live replicas hold {key!r}"
        return payload

    def check_live_bytes(self) -> None:
        """The counters that decide what is freed say what the map says."""
        start, stop = media_records.table_range(l2p_record.TABLE)
        expected: dict[int, int] = {}
        with self.index.read() as reader:
            for _, value in reader.scan(start, stop):
                location = l2p_record.unpack(value)
                assert isinstance(location, l2p_record.JournalLocation)
                expected.setdefault(location.segment_id, 0)
                expected[location.segment_id] += location.length_bytes
            start, stop = media_records.table_range(media_records.SEGMENTS)
            for _, value in reader.scan(start, stop):
                record = media_records.unpack(media_records.SegmentRecord, value)
                found = liveness.segment_bytes(reader, record.segment_id)
                assert found == expected.get(record.segment_id, 0), record

    def check(self) -> None:
        keys = [b"%d" % number for number in range(KEYS_COUNT)]
        found = {key: self.read(key) for key in keys}
        old = {key: self.answered.get(key) for key in keys}
        new = old | self.in_flight
        assert found in (old, new), "answered mutations lost, torn, or half of a batch applied"
        self.check_live_bytes()
        self.answered = found
        self.in_flight = {}


def run_seeds(count: int) -> None:
    for seed in range(count):
        run(seed)


def run(seed: int) -> None:
    life = Life(seed)
    for _ in range(4):
        with pytest.raises(simulated_device.SimulatedCrash):
            life.run_until_crash()
        power_loss = life.rng.random() < 0.6
        life.world.restart(power_loss=power_loss)
        if power_loss:
            if len(life.dead) < REPLICAS_COUNT - 1 and life.rng.random() < 0.3:
                device_id = life.rng.choice(sorted(set(life.world.devices) - life.dead))
                life.world.devices[device_id].kill()
                life.dead.add(device_id)
            life.index = memory_index.MemoryIndex()
            life.world.crash_at = None
            replay.rebuild(life.index, life.alive_devices(), life.logs()[0])
        # As a node does before it serves.
        life.logs()[0].fence()
        life.check()


@pytest.mark.parametrize("block", range(SEEDS_COUNT // SEEDS_PER_TEST))
def test_nothing_answered_is_lost_and_nothing_is_torn(block: int) -> None:
    for seed in range(block * SEEDS_PER_TEST, (block + 1) * SEEDS_PER_TEST):
        try:
            run(seed)
        except BaseException as exc:
            exc.add_note(f"simulation seed {seed}")
            raise


def test_a_log_that_answers_before_it_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: with appends that are not durable the oracle must see a loss."""
    honest = simulated_device.SimulatedDevice.write

    def hasty(
        self: simulated_device.SimulatedDevice,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        data: memoryview,
        *,
        durable: bool,
    ) -> None:
        honest(self, zone, offset_bytes, data, durable=False)

    monkeypatch.setattr(simulated_device.SimulatedDevice, "write", hasty)
    with pytest.raises((AssertionError, errors.LogDamagedError)):
        run_seeds(50)
