"""Index records about media: segments, groups, checkpoints, zones in use, devices, repairs, scrub.

Every value is one version byte followed by a MessagePack array of the fields in order.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, TypeVar

import msgspec

from couchestor_domain import errors, ids

VERSION: Final = b"\x01"

SEGMENTS: Final = b"s"
GROUPS: Final = b"g"
CHECKPOINTS: Final = b"k"
ZONES: Final = b"z"
DEVICES: Final = b"d"
REPAIRS: Final = b"r"
META: Final = b"m"

APPLIED_KEY: Final = META + b"applied"
"""Sequence of the last batch in this index (u64). Written with every commit, never logged."""
NODE_KEY: Final = META + b"node"
"""Node id, so that an index of another node is never used."""
FENCE_KEY: Final = META + b"fence"
"""Segment of the last fence: written for its place in the order, not for its value."""
ADDRESS_KEY: Final = META + b"address"
"""First extent address that was never leased to a writer (u64)."""
SCRUB_KEY: Final = META + b"scrub"
"""How far the scrub is, and what its last pass found (``ScrubRecord``)."""

U64: Final = struct.Struct(">Q")
ZONE_KEY: Final = struct.Struct(">1s16sI")


class ZoneSetState(enum.IntEnum):
    """Life of a segment or group."""

    OPEN = 1
    SEALED = 2


class CheckpointState(enum.IntEnum):
    """Life of a checkpoint."""

    OPEN = 1
    COMPLETE = 2


class SegmentRecord(msgspec.Struct, array_like=True, frozen=True):
    """A log segment: the same content on every member zone."""

    segment_id: int
    state: int
    writer: str
    """Writer slot that may append."""
    seed: int
    members: tuple[tuple[str, int], ...]
    from_reserve: bool = False
    """Opened when only the reserve of free zones was left: takes nothing that makes the store
    fuller."""


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A stripe group; member i holds shard i."""

    group_id: int
    state: int
    writer: str
    data_shards: int
    parity_shards: int
    codec_id: int
    members: tuple[tuple[str, int], ...]


class CheckpointRecord(msgspec.Struct, array_like=True, frozen=True):
    """An image of the index; part p of copy c is zone ``parts[p][c]``."""

    checkpoint_id: int
    state: int
    seed: int
    """Of the checksums of its blocks."""
    parts: tuple[tuple[tuple[str, int], ...], ...]
    sequence: int = 0
    """Last batch in the image. This and what follows is known once it is complete."""
    image_bytes: int = 0
    """Bytes of one copy on media."""
    entries_count: int = 0
    taken_ns: int = 0
    open_segments: tuple[tuple[int, int], ...] = ()
    """Segments open at ``sequence`` and how many bytes were in them: what the log has grown by
    since is counted from there."""


class ZoneRecord(msgspec.Struct, array_like=True, frozen=True):
    """A zone that is not free, and what owns it."""

    role: int
    owner_id: int


class DeviceRecord(msgspec.Struct, array_like=True, frozen=True):
    """A member device as the catalogue knows it."""

    device_id: str
    label: str
    failure_domain: str
    joined_epoch: int
    retired: bool


class RepairRecord(msgspec.Struct, array_like=True, frozen=True):
    """A shard that a read found missing or wrong."""

    group_id: int
    stripe_offset_bytes: int
    shard_index: int
    reason: str
    found_ns: int


class ScrubCounts(msgspec.Struct, array_like=True, frozen=True):
    """What one pass of the scrub has done."""

    started_ns: int = 0
    ended_ns: int = 0
    """0: not at its end yet."""
    read_bytes: int = 0
    shards_count: int = 0
    """Shards that verified."""
    damaged_count: int = 0
    """Shards that did not, and that something leads to."""
    findings_count: int = 0
    """Everything else that was not as it should be; the log has a line for each."""
    repaired_count: int = 0
    """Shards that were rebuilt between the end of the pass before and the end of this one."""


class ScrubRecord(msgspec.Struct, array_like=True, frozen=True):
    """The scrub's place, so that a restart goes on there."""

    phase: int
    position: int
    """Id of the last group, segment or address that is done in this phase."""
    doubtful_groups: tuple[int, ...]
    """Groups of which more is alive than their members show."""
    counts: ScrubCounts
    last: ScrubCounts
    """The pass before."""
    repaired_count: int = 0
    """Shards that were rebuilt since the last pass ended."""
    damaged_segments: tuple[tuple[int, int], ...] = ()
    """Log segments of which a replica has lost something: id, and the last sequence concerned."""


Record = TypeVar(
    "Record",
    SegmentRecord,
    GroupRecord,
    CheckpointRecord,
    ZoneRecord,
    DeviceRecord,
    RepairRecord,
    ScrubRecord,
)
ENCODER: Final = msgspec.msgpack.Encoder()


def pack(record: Record) -> bytes:
    """Encode any record of this module."""
    return VERSION + ENCODER.encode(record)


def unpack(kind: type[Record], value: bytes) -> Record:
    """Decode. Raises IndexCorruptError."""
    if value[:1] != VERSION:
        raise errors.IndexCorruptError(
            f"the index holds a {kind.__name__} of an unknown version {value[:1]!r}; "
            "run `couchestor recover`"
        )
    try:
        return msgspec.msgpack.decode(value[1:], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise errors.IndexCorruptError(
            f"the index holds an undecodable {kind.__name__}: {exc}; run `couchestor recover`"
        ) from exc


_ZONE_RECORD_START: Final = pack(ZoneRecord(0, 0))[:2]


def segment_key(segment_id: int) -> bytes:
    """Key of a segment."""
    return SEGMENTS + U64.pack(segment_id)


def group_key(group_id: int) -> bytes:
    """Key of a group."""
    return GROUPS + U64.pack(group_id)


def checkpoint_key(checkpoint_id: int) -> bytes:
    """Key of a checkpoint."""
    return CHECKPOINTS + U64.pack(checkpoint_id)


def zone_key(zone: ids.ZoneAddress) -> bytes:
    """Key of a zone in use."""
    return ZONE_KEY.pack(ZONES, bytes.fromhex(zone.device_id), zone.zone_index)


def device_zones_range(device_id: ids.DeviceId) -> tuple[bytes, bytes]:
    """Key range of one device's zones in use."""
    prefix = ZONES + bytes.fromhex(device_id)
    return prefix, prefix + b"\xff" * 5


def zone_index_of(key: bytes) -> ids.ZoneIndex:
    """Zone index in a zone key."""
    return ids.ZoneIndex(int(ZONE_KEY.unpack(key)[2]))


def zone_role_of(value: bytes) -> int:
    """Role in a packed zone record without decoding it: there are many."""
    assert value[:2] == _ZONE_RECORD_START, value
    return value[2]


def zone_of_key(key: bytes) -> ids.ZoneAddress:
    """Zone in a zone key."""
    _, device, index = ZONE_KEY.unpack(key)
    return ids.ZoneAddress(ids.DeviceId(device.hex()), ids.ZoneIndex(index))


def device_key(device_id: ids.DeviceId) -> bytes:
    """Key of a device."""
    return DEVICES + bytes.fromhex(device_id)


def repair_key(group_id: int, stripe_offset_bytes: int, shard_index: int) -> bytes:
    """Key of a repair: one per shard, so that repeated reads do not queue it twice."""
    return REPAIRS + U64.pack(group_id) + U64.pack(stripe_offset_bytes) + bytes([shard_index])


def group_repairs_range(group_id: int) -> tuple[bytes, bytes]:
    """Key range of the repairs of one group."""
    prefix = REPAIRS + U64.pack(group_id)
    return prefix, prefix + b"\xff" * 10


def table_range(table: bytes) -> tuple[bytes, bytes]:
    """Key range of a whole table."""
    return table, bytes([table[0] + 1])


def zone_addresses(members: tuple[tuple[str, int], ...]) -> tuple[ids.ZoneAddress, ...]:
    """Members as addresses."""
    return tuple(
        ids.ZoneAddress(ids.DeviceId(device), ids.ZoneIndex(zone)) for device, zone in members
    )
