"""First block of every zone in use: what the zone holds, readable without the index.

frame magic "CSTZONE\\0", version 1, zero-padded to one 4 KiB block; payload:

offset  bytes  field
0       1      role: 1 log segment, 2 stripe group, 3 checkpoint
1       1      index of this zone among the members (of a checkpoint: the copy)
2       1      member count
3       1      data shards (0 but for a group)
4       1      parity shards (0 but for a group)
5       3      zero
8       8      owner id: segment id, group id or checkpoint id
16      8      seed of the checksums of a segment's batches or a checkpoint's blocks
24      20*n   members: device id (16), zone index u32; of a checkpoint: the zones of all copies
               that hold the same part of the image
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from couchestor_daemon.formats import frame
from couchestor_domain import errors, ids, units

MAGIC: Final = b"CSTZONE\0"
VERSION: Final = 1
FIXED: Final = struct.Struct("<BBBBB3xQQ")
MEMBER: Final = struct.Struct("<16sI")
ZONE_HEADER_BYTES: Final = units.BLOCK_BYTES
assert FIXED.size == 24, FIXED.size


class ZoneRole(enum.IntEnum):
    """What a zone is used for."""

    SEGMENT = 1
    GROUP = 2
    CHECKPOINT = 3
    LEFT = 4
    """Of index records alone, never in a header: no member of the group that owns the zone any
    more, but readers may still look at it."""
    REBUILD = 5
    """Of index records alone: being filled to take the place of a member of the group that owns
    the zone."""
    TEST = 6
    """Of index records alone: written to by a test of the device; owned by nobody."""


KNOWN_ROLES: Final = frozenset({ZoneRole.SEGMENT, ZoneRole.GROUP, ZoneRole.CHECKPOINT})


class ZoneHeader(NamedTuple):
    """A verified zone header."""

    role: ZoneRole
    member_index: int
    data_shards: int
    parity_shards: int
    owner_id: int
    seed: int
    members: tuple[ids.ZoneAddress, ...]


def pack(header: ZoneHeader) -> bytes:
    """One block."""
    assert header.role is not ZoneRole.LEFT, header
    assert header.role is not ZoneRole.REBUILD, header
    assert header.role is not ZoneRole.TEST, header
    payload = bytearray(
        FIXED.pack(
            header.role,
            header.member_index,
            len(header.members),
            header.data_shards,
            header.parity_shards,
            header.owner_id,
            header.seed,
        )
    )
    for member in header.members:
        payload += MEMBER.pack(bytes.fromhex(member.device_id), member.zone_index)
    block = frame.pack(MAGIC, version=VERSION, payload=bytes(payload))
    if len(block) > ZONE_HEADER_BYTES:
        raise errors.InvalidEcConfigurationError("too many members for a zone header")
    return block.ljust(ZONE_HEADER_BYTES, b"\0")


def unpack(block: memoryview) -> ZoneHeader | None:
    """The header, or None when the block is not one of ours or does not verify."""
    found = frame.unpack(MAGIC, block)
    if found is None or found.version != VERSION or len(found.payload) < FIXED.size:
        return None
    role, index, count, data_shards, parity_shards, owner_id, seed = FIXED.unpack_from(
        found.payload
    )
    if role not in KNOWN_ROLES or len(found.payload) != FIXED.size + MEMBER.size * count:
        return None
    members = tuple(
        ids.ZoneAddress(ids.DeviceId(device.hex()), ids.ZoneIndex(zone))
        for device, zone in MEMBER.iter_unpack(
            found.payload[FIXED.size : FIXED.size + MEMBER.size * count]
        )
    )
    return ZoneHeader(ZoneRole(role), index, data_shards, parity_shards, owner_id, seed, members)
