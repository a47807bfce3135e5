"""What a node says of itself: how it is, its devices, its writers, and each shard it holds."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass
from typing import Final

from couchestor_domain import geometry, ids, units
from couchestor_domain.node_api import fields

DEVICES_COUNT_MAX: Final = 256
OFFERED_ZONES_COUNT_MAX: Final = 1024
WRITERS_COUNT_MAX: Final = 256
WRITER_GROUPS_COUNT_MAX: Final = 256
WRITER_NAME_LENGTH_MAX: Final = 200
"""So that the names of its groups are names, too."""
PAGE_GROUPS_COUNT_MAX: Final = 1000


class NodeHealth(enum.Enum):
    """How a node is."""

    READY = "Ready"
    DEGRADED = "Degraded"
    """Serves, with fewer devices than it has been given; takes shards."""
    READ_ONLY = "ReadOnly"
    STOPPING = "Stopping"


class DeviceHealth(enum.Enum):
    """How a device is; only a healthy one takes shards."""

    HEALTHY = "Healthy"
    SUSPECT = "Suspect"
    FAILED = "Failed"
    RETIRING = "Retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """One device of a node."""

    device_id: ids.DeviceId
    health: DeviceHealth
    capacity_bytes: int
    free_bytes: int
    """In zones that hold nothing and are assigned to nobody; the offered ones among them."""
    zone_bytes: int
    offered_zones: tuple[int, ...]
    """Indices, ascending: zones that the node leaves to the cluster, and that hold nothing. There
    may be more than are said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterGroup:
    """A stripe group that a writer was given and has not sealed."""

    stripe: str
    """Name of the group's ECStripe."""
    generation: int
    """Of the assignment that the writer goes by."""
    usable: bool
    """Whether it was told that all members have taken the group; before, it must not open it."""
    open: bool
    """Whether it has begun to write there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterRecord:
    """One writer of a node."""

    name: str
    """Of its logical volume; no other writer of any node has it."""
    stripe_id_next: int
    """Neither this number nor a higher one was ever a group of it; below it all are used up."""
    groups: tuple[WriterGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A node as it is now."""

    node: str
    """Its name in Kubernetes."""
    node_id: ids.NodeId
    revision: int
    """Rises with every change of this record or of a shard; never goes back while the daemon runs,
    nor over a restart."""
    health: NodeHealth
    devices: tuple[DeviceRecord, ...]
    writers: tuple[WriterRecord, ...]

    @property
    def capacity_bytes(self) -> int:
        """Of all devices."""
        return sum(device.capacity_bytes for device in self.devices)


class ShardState(enum.Enum):
    """What became of a shard that was assigned."""

    ASSIGNED = "Assigned"
    """Its zone is kept for it; nothing was written."""
    OPEN = "Open"
    SEALED = "Sealed"
    """Complete and verified when it was; takes no more."""
    REBUILDING = "Rebuilding"
    DAMAGED = "Damaged"
    """Does not verify, or its device has failed."""
    RELEASED = "Released"
    """Not there any more; said for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """A shard that a node was assigned, at a place.

    One that moves within the node is told of at both places until the old one is released.
    """

    stripe: str
    """Name of the group's ECStripe."""
    generation: int
    """Of the assignment that the node goes by."""
    shard_index: int
    device_id: ids.DeviceId
    offset_bytes: int
    state: ShardState
    written_bytes: int
    revision: int
    """Of the node when this last changed; no other shard has the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPage:
    """Shards that changed after a revision, in the order in which they did."""

    node: str
    shards: tuple[ShardRecord, ...]
    revision: int
    """What was asked for next: of the last shard, or of the node where there are no more."""
    more: bool
    """Whether others have changed since that revision already."""


def encode(record: NodeRecord) -> bytes:
    """As it is sent."""
    return fields.written(
        "NodeRecord",
        {
            "node": record.node,
            "node_id": record.node_id,
            "revision": record.revision,
            "health": record.health.value,
            "devices": [
                {
                    "device_id": device.device_id,
                    "health": device.health.value,
                    "capacity_bytes": device.capacity_bytes,
                    "free_bytes": device.free_bytes,
                    "zone_bytes": device.zone_bytes,
                    "offered_zones": list(device.offered_zones),
                }
                for device in record.devices
            ],
            "writers": [
                {
                    "name": writer.name,
                    "stripe_id_next": writer.stripe_id_next,
                    "groups": [
                        {
                            "stripe": group.stripe,
                            "generation": group.generation,
                            "usable": group.usable,
                            "open": group.open,
                        }
                        for group in writer.groups
                    ],
                }
                for writer in record.writers
            ],
        },
    )


def decode(body: bytes | bytearray) -> NodeRecord:
    """A record as another machine sent it.

    Raises:
        NodeRecordError: it does not fit, or contradicts itself.
    """
    read = fields.opened(body, kind="NodeRecord")
    record = NodeRecord(
        node=read.name("node"),
        node_id=ids.NodeId(read.hexadecimal_id("node_id")),
        revision=read.count("revision"),
        health=read.choice("health", NodeHealth),
        devices=read.each("devices", _device, most=DEVICES_COUNT_MAX),
        writers=read.each("writers", _writer, most=WRITERS_COUNT_MAX),
    )
    read.end()
    if len({device.device_id for device in record.devices}) != len(record.devices):
        read.refuse("devices", "names a device twice")
    if len({writer.name for writer in record.writers}) != len(record.writers):
        read.refuse("writers", "names a writer twice")
    return record


def encode_page(page: ShardPage) -> bytes:
    """As it is sent."""
    return fields.written(
        "ShardPage",
        {
            "node": page.node,
            "revision": page.revision,
            "more": page.more,
            "shards": [
                {
                    "stripe": shard.stripe,
                    "generation": shard.generation,
                    "shard_index": shard.shard_index,
                    "device_id": shard.device_id,
                    "offset_bytes": shard.offset_bytes,
                    "state": shard.state.value,
                    "written_bytes": shard.written_bytes,
                    "revision": shard.revision,
                }
                for shard in page.shards
            ],
        },
    )


def decode_page(body: bytes | bytearray) -> ShardPage:
    """A page as another machine sent it.

    Raises:
        NodeRecordError: it does not fit, or its shards are not in order.
    """
    read = fields.opened(body, kind="ShardPage")
    page = ShardPage(
        node=read.name("node"),
        revision=read.count("revision"),
        more=read.flag("more"),
        shards=read.each("shards", _shard, most=PAGE_GROUPS_COUNT_MAX),
    )
    read.end()
    revisions = [shard.revision for shard in page.shards]
    if any(after <= before for before, after in itertools.pairwise(revisions)):
        read.refuse("shards", "must be in the order in which they changed")
    if page.more and (not page.shards or page.revision != page.shards[-1].revision):
        read.refuse("revision", "must be that of the last shard where there are more")
    if page.shards and page.revision < page.shards[-1].revision:
        read.refuse("revision", "must not be below that of a shard")
    return page


def _device(value: object, path: str) -> DeviceRecord:
    read = fields.Fields(value, path=path)
    device = DeviceRecord(
        device_id=read.device_id("device_id"),
        health=read.choice("health", DeviceHealth),
        capacity_bytes=read.count("capacity_bytes", least=1),
        free_bytes=read.count("free_bytes"),
        zone_bytes=read.count("zone_bytes", least=units.BLOCK_BYTES),
        offered_zones=read.each("offered_zones", fields.count_item, most=OFFERED_ZONES_COUNT_MAX),
    )
    read.end()
    if device.free_bytes > device.capacity_bytes:
        read.refuse("free_bytes", "is above capacity_bytes")
    if device.zone_bytes % units.BLOCK_BYTES:
        read.refuse("zone_bytes", f"is not a multiple of {units.BLOCK_BYTES}")
    zones = device.offered_zones
    if any(after <= before for before, after in itertools.pairwise(zones)):
        read.refuse("offered_zones", "must ascend")
    if zones and (zones[-1] + 1) * device.zone_bytes > device.capacity_bytes:
        read.refuse("offered_zones", "has a zone beyond capacity_bytes")
    if len(zones) * device.zone_bytes > device.free_bytes:
        read.refuse("offered_zones", "are more than free_bytes holds")
    return device


def _writer(value: object, path: str) -> WriterRecord:
    read = fields.Fields(value, path=path)
    writer = WriterRecord(
        name=read.name("name", length_max=WRITER_NAME_LENGTH_MAX),
        stripe_id_next=read.count("stripe_id_next"),
        groups=read.each("groups", _writer_group, most=WRITER_GROUPS_COUNT_MAX),
    )
    read.end()
    return writer


def _writer_group(value: object, path: str) -> WriterGroup:
    read = fields.Fields(value, path=path)
    group = WriterGroup(
        stripe=read.name("stripe"),
        generation=read.count("generation"),
        usable=read.flag("usable"),
        open=read.flag("open"),
    )
    read.end()
    if group.open and not group.usable:
        read.refuse("open", "must be false of a group that is not usable")
    return group


def _shard(value: object, path: str) -> ShardRecord:
    read = fields.Fields(value, path=path)
    shard = ShardRecord(
        stripe=read.name("stripe"),
        generation=read.count("generation"),
        shard_index=read.count("shard_index", most=geometry.SHARDS_COUNT_MAX - 1),
        device_id=read.device_id("device_id"),
        offset_bytes=read.count("offset_bytes"),
        state=read.choice("state", ShardState),
        written_bytes=read.count("written_bytes"),
        revision=read.count("revision"),
    )
    read.end()
    if shard.state is ShardState.ASSIGNED and shard.written_bytes:
        read.refuse("written_bytes", "must be 0 of a shard that is only assigned")
    return shard
