"""The superblock: who a device is, in its first block (or its ``identity`` file).

    offset  bytes  field
    0       24     frame: magic CSTORDEV, version 2, payload length, XXH3-64 (formats.frame)
    24      n      payload: DeviceIdentity as JSON text, keys sorted, no spaces, ASCII
    24 + n  ...    zeros up to 4096

Version 1 had neither ``members_count`` nor ``retiring``; it is read, and written anew as version 2
at the next start. An older program refuses version 2 rather than write to a retiring device.

JSON because a person with a broken device reads this block first.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from couchestor_daemon.formats import frame
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

MAGIC: Final = b"CSTORDEV"
VERSION: Final = 2
VERSIONS_READ: Final = (1, 2)
SUPERBLOCK_BYTES: Final = units.BLOCK_BYTES


def pack(identity: device_port.DeviceIdentity) -> bytes:
    """The superblock, ``SUPERBLOCK_BYTES`` long.

    Raises:
        ConfigurationError: label and failure domain are too long for one block.
    """
    text = json.dumps(dataclasses.asdict(identity), sort_keys=True, separators=(",", ":"))
    packed = frame.pack(MAGIC, version=VERSION, payload=text.encode("ascii"))
    if len(packed) > SUPERBLOCK_BYTES:
        raise errors.ConfigurationError(
            f"label and failure domain of device {identity.label[:40]!r} do not fit the "
            f"{SUPERBLOCK_BYTES}-byte superblock: shorten them"
        )
    return packed.ljust(SUPERBLOCK_BYTES, b"\0")


def unpack(superblock: bytes | bytearray | memoryview) -> device_port.DeviceIdentity:
    """The identity in a superblock.

    Raises:
        UnformattedDeviceError: nothing but zeros.
        ForeignDeviceError: something that is not ours.
        DeviceCorruptError: ours, but damaged or of an unknown version.
    """
    view = memoryview(superblock)
    if not any(view):
        raise errors.UnformattedDeviceError("the device carries no identity: format it first")
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise errors.ForeignDeviceError("the device carries data that is not CoucheStor's")
    found = frame.unpack(MAGIC, view)
    if found is None:
        raise errors.DeviceCorruptError("the device's superblock fails its checksum")
    if found.version not in VERSIONS_READ:
        raise errors.DeviceCorruptError(
            f"the device's superblock has version {found.version}, this program reads "
            f"{VERSIONS_READ[0]} to {VERSIONS_READ[-1]}"
        )
    return _from_json(bytes(found.payload), version=found.version)


def _from_json(payload: bytes, *, version: int) -> device_port.DeviceIdentity:
    try:
        fields = json.loads(payload)
        if version == 1:
            fields = {**fields, "members_count": 0, "retiring": False}
        return device_port.DeviceIdentity(
            node_id=ids.NodeId(str(fields["node_id"])),
            device_id=ids.DeviceId(str(fields["device_id"])),
            label=str(fields["label"]),
            failure_domain=str(fields["failure_domain"]),
            zone_count=int(fields["zone_count"]),
            zone_capacity_bytes=int(fields["zone_capacity_bytes"]),
            joined_epoch=int(fields["joined_epoch"]),
            members_count=int(fields["members_count"]),
            retiring=bool(fields["retiring"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise errors.DeviceCorruptError(
            f"the device's superblock verifies but is not an identity: {exc!r}"
        ) from exc
