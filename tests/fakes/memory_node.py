"""A storage node in memory: what the contract of the node API asks of its daemon, and no media.

Requests change it as they would a daemon; what a daemon does by itself (write, seal, rebuild, lose
a device) a test does by name.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from couchestor_domain import ids
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record

ZONE_BYTES: Final = 1 << 20
TOMBSTONES_COUNT_MAX: Final = 4


ShardKey = tuple[str, int, ids.DeviceId, int]
"""Group, index, device, offset."""


def key_of(stripe: str, index: int, place: assignment.ShardPlace) -> ShardKey:
    """Of a shard that lies where it is to lie."""
    return (stripe, index, place.device_id, place.offset_bytes)


class Refused(Exception):
    """The node does nothing."""

    def __init__(self, refusal: contract.Refusal, message: str) -> None:
        super().__init__(message)
        self.complaint = contract.Complaint(refusal=refusal, message=message)


@dataclasses.dataclass(slots=True)
class Device:
    """A device, all zones of which are offered at first."""

    zones_count: int
    health: node_record.DeviceHealth = node_record.DeviceHealth.HEALTHY
    held_zones: set[int] = dataclasses.field(default_factory=set)
    """Zones that hold something, or are kept for something."""


@dataclasses.dataclass(slots=True)
class Writer:
    """A writer, and what it was given."""

    stripe_id_next: int = 0
    groups: dict[str, node_record.WriterGroup] = dataclasses.field(default_factory=dict)
    sealed: set[str] = dataclasses.field(default_factory=set)


class MemoryNode:
    """One node."""

    def __init__(self, name: str, *, devices_count: int = 1, zones_count: int = 16) -> None:
        self.name = name
        self.health = node_record.NodeHealth.READY
        self.revision = 1
        self.devices = {
            ids.DeviceId(f"{name.encode().hex()[-24:]:0>24}{number:08x}"): Device(zones_count)
            for number in range(devices_count)
        }
        self.writers = {f"{name}-w0": Writer()}
        self.shards: dict[ShardKey, node_record.ShardRecord] = {}
        self.assignments: dict[str, assignment.Assignment] = {}
        self.encodings: dict[str, encoding_request.EncodingState] = {}
        self.requests: dict[str, encoding_request.EncodingRequest] = {}
        self.refuses_zones = False
        """Whether it has less room than it says."""
        self._forgotten_revision = 0
        """Of the last release that it does not know of any more."""

    # -- the API -----------------------------------------------------------------------------------

    def state(self) -> node_record.NodeRecord:
        """``GET state``."""
        return node_record.NodeRecord(
            node=self.name,
            node_id=ids.NodeId(f"{self.name.encode().hex()[-32:]:0>32}"),
            revision=self.revision,
            health=self.health,
            devices=tuple(
                node_record.DeviceRecord(
                    device_id=device_id,
                    health=device.health,
                    capacity_bytes=device.zones_count * ZONE_BYTES,
                    free_bytes=len(self._free(device)) * ZONE_BYTES,
                    zone_bytes=ZONE_BYTES,
                    offered_zones=self._free(device),
                )
                for device_id, device in self.devices.items()
            ),
            writers=tuple(
                node_record.WriterRecord(
                    name=name,
                    stripe_id_next=writer.stripe_id_next,
                    groups=tuple(writer.groups.values()),
                )
                for name, writer in self.writers.items()
            ),
        )

    def page(self, since: int, *, begun: int, shards_count_max: int = 3) -> node_record.ShardPage:
        """``GET shards``."""
        if since and begun < self._forgotten_revision:
            raise Refused(contract.Refusal.SINCE_TOO_OLD, "begin at 0")
        changed = sorted(
            (
                shard
                for shard in self.shards.values()
                if shard.revision > since
                and (since or shard.state is not node_record.ShardState.RELEASED)
            ),
            key=lambda shard: shard.revision,
        )
        more = len(changed) > shards_count_max
        shown = changed[:shards_count_max]
        return node_record.ShardPage(
            node=self.name,
            shards=tuple(shown),
            revision=shown[-1].revision if more else self.revision,
            more=more,
        )

    def assign(self, wanted: assignment.Assignment) -> bool:
        """``PUT groups``. Returns: whether it was new."""
        known = self.assignments.get(wanted.stripe)
        if known is not None and known.generation > wanted.generation:
            raise Refused(
                contract.Refusal.STALE_GENERATION,
                f"{wanted.stripe} is at generation {known.generation}",
            )
        if known is not None and known.generation == wanted.generation:
            if dataclasses.replace(known, usable=wanted.usable) != wanted:
                raise Refused(contract.Refusal.DIFFERENT_CONTENT, f"{wanted.stripe} differs")
            wanted = dataclasses.replace(wanted, usable=known.usable or wanted.usable)
        mine = {
            index: place for index, place in enumerate(wanted.shards) if place.node == self.name
        }
        for index, place in mine.items():
            self._check(wanted.stripe, index, place)
        self.assignments[wanted.stripe] = wanted
        for index, place in mine.items():
            self._take(wanted, index, place, is_first=known is None)
        if wanted.writer_node == self.name:
            self._give(wanted)
        return known is None or known.generation < wanted.generation

    def release(self, stripe: str, *, generation: int) -> None:
        """``DELETE groups``."""
        known = self.assignments.get(stripe)
        if known is not None and known.generation < generation:
            raise Refused(
                contract.Refusal.HOLDS_DATA, f"{stripe} is at generation {known.generation} here"
            )
        for key, shard in list(self.shards.items()):
            if (
                known is None
                or key[0] != stripe
                or shard.state is node_record.ShardState.RELEASED
                or shard.generation >= generation
            ):
                continue
            place = known.shards[key[1]]
            if (place.device_id, place.offset_bytes) == (shard.device_id, shard.offset_bytes):
                continue
            self.devices[shard.device_id].held_zones.discard(shard.offset_bytes // ZONE_BYTES)
            self._put(key, shard, state=node_record.ShardState.RELEASED, written_bytes=0)
        self._forget()

    def encode(
        self, request: encoding_request.EncodingRequest
    ) -> tuple[encoding_request.EncodingState, bool]:
        """``PUT encodings``. Returns: how far it is, and whether it was new."""
        known = self.requests.get(request.volume)
        if known is not None and known.generation > request.generation:
            raise Refused(
                contract.Refusal.STALE_GENERATION,
                f"{request.volume} is at generation {known.generation}",
            )
        if known is not None and known.generation == request.generation:
            if known != request:
                raise Refused(contract.Refusal.DIFFERENT_CONTENT, f"{request.volume} differs")
            return self.encodings[request.volume], False
        self.requests[request.volume] = request
        self.encodings[request.volume] = state = encoding_request.EncodingState(
            volume=request.volume,
            generation=request.generation,
            phase=encoding_request.EncodingPhase.ACCEPTED,
            encoded_bytes=0,
            reason="",
        )
        return state, True

    def encoding(self, volume: str) -> encoding_request.EncodingState:
        """``GET encodings``."""
        if volume not in self.encodings:
            raise Refused(contract.Refusal.UNKNOWN, f"{volume} was never asked for")
        return self.encodings[volume]

    # -- what a test does to it --------------------------------------------------------------------

    def move_on(self, stripe: str, state: node_record.ShardState, *, written_bytes: int) -> None:
        """Have the shards of a group that are here be so."""
        for key, shard in list(self.shards.items()):
            if key[0] == stripe and shard.state is not node_record.ShardState.RELEASED:
                self._put(key, shard, state=state, written_bytes=written_bytes)

    def put_shard(
        self,
        key: ShardKey,
        state: node_record.ShardState,
        *,
        written_bytes: int,
    ) -> None:
        """Have one shard be so."""
        self._put(key, self.shards[key], state=state, written_bytes=written_bytes)

    def open_group(self, stripe: str) -> None:
        """Have its writer begin to write there, if it may."""
        for writer in self.writers.values():
            if stripe in writer.groups:
                group = writer.groups[stripe]
                assert group.usable, stripe
                writer.groups[stripe] = dataclasses.replace(group, open=True)
                self.revision += 1

    def seal_group(self, stripe: str) -> None:
        """Have its writer be done with it."""
        for writer in self.writers.values():
            if writer.groups.pop(stripe, None) is not None:
                writer.sealed.add(stripe)
        self.revision += 1

    def lose_shards(self) -> None:
        """Have an empty disk in place of one that was full."""
        for shard in self.shards.values():
            self.devices[shard.device_id].held_zones.clear()
        self.shards.clear()
        self.revision += 1
        self._forgotten_revision = self.revision

    # -- inside ------------------------------------------------------------------------------------

    def _free(self, device: Device) -> tuple[int, ...]:
        return tuple(zone for zone in range(device.zones_count) if zone not in device.held_zones)

    def _check(self, stripe: str, index: int, place: assignment.ShardPlace) -> None:
        key = key_of(stripe, index, place)
        if self.refuses_zones and key not in self.shards:
            raise Refused(contract.Refusal.NO_ROOM, f"no zone is free for {stripe}")
        device = self.devices.get(place.device_id)
        zone, rest = divmod(place.offset_bytes, ZONE_BYTES)
        if device is None or rest or place.size_bytes != ZONE_BYTES:
            raise Refused(contract.Refusal.MALFORMED, f"{stripe} names no zone of a device here")
        held = self.shards.get(key)
        is_there = held is not None and held.state is not node_record.ShardState.RELEASED
        if zone in device.held_zones and not is_there:
            raise Refused(contract.Refusal.ZONE_TAKEN, f"zone {zone} holds something else")

    def _take(
        self,
        wanted: assignment.Assignment,
        index: int,
        place: assignment.ShardPlace,
        *,
        is_first: bool,
    ) -> None:
        key = key_of(wanted.stripe, index, place)
        held = self.shards.get(key)
        is_there = held is not None and held.state is not node_record.ShardState.RELEASED
        if held is not None and is_there:
            if held.generation != wanted.generation:
                self._put(key, held, generation=wanted.generation)
            return
        self.devices[place.device_id].held_zones.add(place.offset_bytes // ZONE_BYTES)
        self.revision += 1
        self.shards[key] = node_record.ShardRecord(
            stripe=wanted.stripe,
            generation=wanted.generation,
            shard_index=index,
            device_id=place.device_id,
            offset_bytes=place.offset_bytes,
            state=node_record.ShardState.ASSIGNED
            if is_first and wanted.generation == 1
            else node_record.ShardState.REBUILDING,
            written_bytes=0,
            revision=self.revision,
        )

    def _give(self, wanted: assignment.Assignment) -> None:
        writer = self.writers[wanted.writer]
        known = writer.groups.get(wanted.stripe)
        if wanted.stripe in writer.sealed:
            return
        writer.stripe_id_next = max(writer.stripe_id_next, wanted.stripe_id + 1)
        given = node_record.WriterGroup(
            stripe=wanted.stripe,
            generation=wanted.generation,
            usable=wanted.usable or (known is not None and known.open),
            open=known is not None and known.open,
        )
        if given != known:
            writer.groups[wanted.stripe] = given
            self.revision += 1

    def _put(self, key: ShardKey, shard: node_record.ShardRecord, **changes: object) -> None:
        self.revision += 1
        self.shards[key] = dataclasses.replace(
            shard,
            **changes,  # type: ignore[arg-type]
            revision=self.revision,
        )

    def _forget(self) -> None:
        gone = sorted(
            (shard.revision, key)
            for key, shard in self.shards.items()
            if shard.state is node_record.ShardState.RELEASED
        )
        for revision, key in gone[: max(0, len(gone) - TOMBSTONES_COUNT_MAX)]:
            del self.shards[key]
            self._forgotten_revision = revision
