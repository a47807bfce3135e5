"""Identities. Never a bare ``int`` in a signature beside another ``int``."""

from __future__ import annotations

from typing import NamedTuple, NewType

NodeId = NewType("NodeId", str)
"""32 lower-case hexadecimal digits, drawn once when a node is formatted."""

DeviceId = NewType("DeviceId", str)
"""32 lower-case hexadecimal digits, written on the medium when a device is formatted."""

ZoneIndex = NewType("ZoneIndex", int)
"""Position of a zone on its device, from 0."""

GroupId = NewType("GroupId", int)
"""A stripe group; never reused, so a shard of an earlier life of a zone never matches. From 1."""

SegmentId = NewType("SegmentId", int)
"""A replicated log segment (the same zone content on ``journal_replicas`` devices). From 1."""

CheckpointId = NewType("CheckpointId", int)
"""A checkpoint of the index. From 1."""

WriterEpoch = NewType("WriterEpoch", int)
"""One incarnation of one writing process; strictly increasing per node. From 1."""

Sequence = NewType("Sequence", int)
"""Position of a mutation batch in the node's one total order. 0 is the empty store."""

ExtentAddress = NewType("ExtentAddress", int)
"""Logical byte address, never reused: the key of the L2P."""


class ZoneAddress(NamedTuple):
    """A zone somewhere on this node. A NamedTuple because it is a hot dictionary key."""

    device_id: DeviceId
    zone_index: ZoneIndex


class Extent(NamedTuple):
    """``length_bytes`` logical bytes from ``address``. An object is a list of extents."""

    address: ExtentAddress
    length_bytes: int
