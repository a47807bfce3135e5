"""A node's log, index and checkpoints over simulated devices, without processes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping

import xxhash

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import checkpoint_writer, checkpoints, commit_log, replay
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import events, ids, units

COPIES_COUNT = 3


class Silence:
    """A publisher that drops everything."""

    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


class LogNode:
    """One life after another of a node on the same devices."""

    def __init__(
        self,
        seed: int = 1,
        *,
        devices_count: int = 5,
        zones_count: int = 64,
        zone_bytes: int = 32 * units.KIB,
    ) -> None:
        self.rng = random.Random(seed)
        self.world = simulated_device.SimulatedWorld(seed)
        for number in range(devices_count):
            self.world.add_device(
                device_port.DeviceIdentity(
                    node_id=ids.NodeId("a" * 32),
                    device_id=ids.DeviceId(f"{number:032x}"),
                    label=f"d{number}",
                    failure_domain=f"d{number}",
                    zone_count=zones_count,
                    zone_capacity_bytes=zone_bytes,
                    joined_epoch=1,
                )
            )
        self.away: set[ids.DeviceId] = set()
        self.epoch = 1
        self.index = memory_index.MemoryIndex()
        self.objects: dict[bytes, bytes] = {}
        self.in_flight: tuple[bytes, bytes] | None = None
        self.before_submit: Callable[[], None] = lambda: None
        self._next_address = 1
        self.start()

    @property
    def present(self) -> Mapping[ids.DeviceId, device_port.ZonedDevice]:
        """The devices that are not away."""
        return {i: device for i, device in self.world.devices.items() if i not in self.away}

    def start(self, *, reserve_zones_count: int = 0) -> None:
        """The parts of a new process on the index there is."""
        self.media = inline_media.InlineMedia(self.present, lambda device_id, error: None)
        self.pool = buffers.BufferPool(8 * units.MIB)
        self.logs = [
            self.log(name, reserve_zones_count=reserve_zones_count)
            for name in ("worker-0", "worker-1", "maintenance")
        ]
        self.stop = False
        self.checkpoints = checkpoints.Checkpoints(
            index=self.index,
            media=self.media,
            pool=self.pool,
            submit=self._submit,
            copies_count=COPIES_COUNT,
            reserve_zones_count=reserve_zones_count,
            short_reserve_zones_count=1,
            publisher=Silence(),
            now_ns=lambda: 1,
            should_stop=lambda: self.stop,
            draw_seed=lambda: self.rng.getrandbits(64),
        )

    def log(self, writer: str, *, reserve_zones_count: int = 0) -> commit_log.CommitLog:
        """One writer's end of the log."""
        return commit_log.CommitLog(
            writer=writer,
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=COPIES_COUNT,
            reserve_zones_count=reserve_zones_count,
            publisher=Silence(),
            draw_seed=lambda: self.rng.getrandbits(64),
        )

    def _submit(self, operation: commit_log.Operation) -> object:
        self.before_submit()
        self.logs[2].commit([operation])
        if operation.error is not None:
            raise operation.error
        return operation.result

    def put(self, key: bytes, value: bytes, *, worker: int = 0) -> None:
        """One acknowledged object; its value is payload of the log."""
        address = ids.ExtentAddress(self._next_address)
        self._next_address += 1

        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
            location = l2p_record.JournalLocation(
                place.segment_id, place.offset_bytes, place.length_bytes,
                xxhash.xxh3_64_intdigest(value),
            )  # fmt: skip
            l2p.insert(txn, address, location)
            txn.put(b"o" + key, l2p_record.key(address))

        operation = commit_log.Operation(apply=apply, payload=value)
        self.in_flight = (key, value)
        self.logs[worker].commit([operation])
        if operation.error is not None:
            raise operation.error
        self.objects[key] = value
        self.in_flight = None

    def load(self, count: int, *, tag: bytes = b"k", size_bytes: int = 900) -> None:
        """Objects of both workers; each key entry is long, so that the index grows."""
        for number in range(count):
            key = b"%s-%04d-" % (tag, number)
            self.put(key.ljust(300, b"x"), self.rng.randbytes(size_bytes), worker=number % 2)

    def lose_index(
        self, *, power_loss: bool, crash_after: int | None = None
    ) -> replay.ReplayReport:
        """Crash, forget the index, rebuild it, and start again; the caller fences.

        Args:
            crash_after: Commands after which the rebuild itself crashes, if it makes as many.
        """
        self.world.restart(power_loss=power_loss)
        # As a start does: the devices that are there learn its epoch first.
        self.epoch += 1
        for device in self.present.values():
            identity = dataclasses.replace(device.identity, joined_epoch=self.epoch)
            self.world.devices[identity.device_id].write_identity(identity)
        if crash_after is not None:
            self.world.crash_at = self.world.commands_count + crash_after
        self.index = memory_index.MemoryIndex()
        self.start()
        report = replay.rebuild(self.index, self.present, self.log("recovery"))
        self.world.crash_at = None
        return report

    def content(self) -> dict[bytes, bytes]:
        """Every entry of the index but the applied sequence."""
        with self.index.read() as reader:
            entries = dict(reader.scan(b"", checkpoint_writer.BEYOND_EVERY_KEY))
        del entries[media_records.APPLIED_KEY]
        return entries

    def check_objects(self) -> None:
        """Every acknowledged object reads back from every present replica; no other is listed."""
        with self.index.read() as reader:
            found = dict(reader.scan(b"o", b"p"))
            expected = dict(self.objects)
            if self.in_flight is not None and b"o" + self.in_flight[0] in found:
                expected[self.in_flight[0]] = self.in_flight[1]
            assert sorted(found) == sorted(b"o" + key for key in expected)
            for key, value in expected.items():
                entry = reader.get(found[b"o" + key])
                assert entry is not None
                location = l2p_record.unpack(entry)
                assert isinstance(location, l2p_record.JournalLocation)
                listed = reader.get(media_records.segment_key(location.segment_id))
                assert listed is not None, "an object in a segment the index does not list"
                segment = media_records.unpack(media_records.SegmentRecord, listed)
                readable = 0
                for zone in media_records.zone_addresses(segment.members):
                    if zone.device_id not in self.away:
                        device = self.present[zone.device_id]
                        window = memoryview(bytearray(device.identity.zone_capacity_bytes))
                        device.read(zone.zone_index, 0, window)
                        start = location.offset_bytes
                        assert window[start : start + location.length_bytes] == value
                        readable += 1
                assert readable, key
        self.objects = expected
        self.in_flight = None

    def check_zones(self) -> None:
        """The zones in use are exactly those that a segment or checkpoint names."""
        named: set[bytes] = set()
        with self.index.read() as reader:
            for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS)):
                segment = media_records.unpack(media_records.SegmentRecord, value)
                named |= _keys(segment.members)
            for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS)):
                record = media_records.unpack(media_records.CheckpointRecord, value)
                for part in record.parts:
                    keys = _keys(part)
                    assert not keys & named, "a zone with two owners"
                    named |= keys
            used = {key for key, _ in reader.scan(*media_records.table_range(media_records.ZONES))}
        assert used == named


def _keys(members: tuple[tuple[str, int], ...]) -> set[bytes]:
    return {media_records.zone_key(zone) for zone in media_records.zone_addresses(members)}
