"""What must hold between the index and the media whenever a node has started.

1.  Every byte of every object and part is mapped once, and nothing else is mapped.
2.  Live-byte counters say what the map says.
3.  A zone that is owned is a member of its owner, and the other way round; none has two owners. One
    that a group has left is no member of anything.
4.  What is mapped lies whole on every member device that may not have lost it: all k + m shards,
    all replicas. So the loss of any m devices after any answer loses nothing.
5.  A stripe says what lies in it: its shards name the address of the one extent it holds, or its
    table names each; what is compressed decompresses to its length.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

import xxhash
from tests.simulation import simulated_node

from couchestor_daemon.formats import (
    index_keys,
    index_records,
    l2p_record,
    media_records,
    packed_stripe,
    shard,
    zone_header,
)
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import compression
from couchestor_daemon.services.catalogue import l2p, liveness, usage
from couchestor_domain import ids, units


def run(node: simulated_node.SimulatedNode, *, damaged: Collection[ids.DeviceId]) -> None:
    """Check everything. Raises AssertionError.

    Args:
        damaged: Devices that are dead or have lost bytes: nothing is demanded of them.
    """
    with node.index.read() as reader:
        mapped = _check_map(reader)
        _check_live_bytes(reader, mapped)
        assert list(usage.miscounted(reader)) == []
        _check_zones(reader)
        for entry in mapped:
            if isinstance(entry.location, l2p_record.JournalLocation):
                _check_payload(reader, node, entry.location, damaged)
            else:
                check_stripe(reader, node, entry, damaged=damaged)


def _table(reader: index_port.IndexReader, table: bytes) -> Iterator[tuple[bytes, bytes]]:
    return iter(list(reader.scan(*media_records.table_range(table))))


def _check_map(reader: index_port.IndexReader) -> list[l2p.Entry]:
    wanted: list[tuple[int, int]] = []
    for key, value in itertools.chain(
        _table(reader, index_keys.OBJECTS), _table(reader, index_keys.HISTORY)
    ):
        if len(key) == 1 + 8 + index_keys.KEY_PART_BYTES + 1 and len(value) == 8:
            continue  # Leads to the rest of a long key.
        stored = index_records.unpack(index_records.Object, value)
        assert not stored.parts_id, "the workload makes no object with that many parts"
        assert sum(length for _, length in stored.extents) == stored.size_bytes, stored
        wanted.extend(stored.extents)
    for _, value in _table(reader, index_keys.UPLOAD_PARTS):
        part = index_records.unpack(index_records.Part, value)
        wanted.extend(part.extents)
    entries = [
        l2p.Entry(l2p_record.address_of(key), l2p_record.unpack(value))
        for key, value in _table(reader, l2p_record.TABLE)
    ]
    position = 0
    for address, length in sorted(extent for extent in wanted if extent[1]):
        end = address + length
        while address < end:
            assert position < len(entries), f"address {address} is not mapped"
            found, location = entries[position]
            assert found == address, f"address {address} is not mapped; next is {found}"
            address += location.length_bytes
            position += 1
        assert address == end, f"an entry reaches past its extent, to {address} from {end}"
    assert position == len(entries), f"{len(entries) - position} entries belong to nothing"
    return entries


def _check_live_bytes(reader: index_port.IndexReader, mapped: Collection[l2p.Entry]) -> None:
    expected: dict[bytes, int] = {}
    for _, location in mapped:
        if isinstance(location, l2p_record.JournalLocation):
            key = index_keys.segment_live(location.segment_id)
        else:
            key = index_keys.group_live(location.group_id)
        expected[key] = expected.get(key, 0) + location.stored_bytes
    found = {
        key: index_keys.U64.unpack(value)[0] for key, value in _table(reader, index_keys.LIVE_BYTES)
    }
    assert found == expected, f"live bytes {found}, the map says {expected}"
    assert liveness.group_bytes(reader, 0) == 0


def _check_zones(reader: index_port.IndexReader) -> None:
    members: dict[bytes, tuple[int, int]] = {}
    for _, value in _table(reader, media_records.SEGMENTS):
        segment = media_records.unpack(media_records.SegmentRecord, value)
        for zone in media_records.zone_addresses(segment.members):
            key = media_records.zone_key(zone)
            assert key not in members, f"{zone} is a member twice"
            members[key] = (int(zone_header.ZoneRole.SEGMENT), segment.segment_id)
    for _, value in _table(reader, media_records.GROUPS):
        group = media_records.unpack(media_records.GroupRecord, value)
        devices = {device for device, _ in group.members}
        assert len(devices) == group.data_shards + group.parity_shards, group
        for zone in media_records.zone_addresses(group.members):
            key = media_records.zone_key(zone)
            assert key not in members, f"{zone} is a member twice"
            members[key] = (int(zone_header.ZoneRole.GROUP), group.group_id)
    for _, value in _table(reader, media_records.CHECKPOINTS):
        checkpoint = media_records.unpack(media_records.CheckpointRecord, value)
        for part in checkpoint.parts:
            for zone in media_records.zone_addresses(part):
                key = media_records.zone_key(zone)
                assert key not in members, f"{zone} is a member twice"
                members[key] = (int(zone_header.ZoneRole.CHECKPOINT), checkpoint.checkpoint_id)
    owned = {}
    for key, value in _table(reader, media_records.ZONES):
        record = media_records.unpack(media_records.ZoneRecord, value)
        if record.role in (zone_header.ZoneRole.LEFT, zone_header.ZoneRole.REBUILD):
            zone = media_records.zone_of_key(key)
            assert key not in members, f"{zone} is a member and is kept for another purpose"
            continue
        owned[key] = (record.role, record.owner_id)
    assert owned == members, "the zones' owners are not the owners' zones"


def _check_payload(
    reader: index_port.IndexReader,
    node: simulated_node.SimulatedNode,
    location: l2p_record.JournalLocation,
    damaged: Collection[ids.DeviceId],
) -> None:
    value = reader.get(media_records.segment_key(location.segment_id))
    assert value is not None, f"{location} is in a segment that is not listed"
    segment = media_records.unpack(media_records.SegmentRecord, value)
    zones = media_records.zone_addresses(segment.members)
    start = units.align_down(location.offset_bytes, units.BLOCK_BYTES)
    end = units.align_up(location.offset_bytes + location.length_bytes, units.BLOCK_BYTES)
    inside = location.offset_bytes - start
    for index, zone in enumerate(zones):
        if zone.device_id in damaged:
            continue
        _check_header(node, zone, index, zone_header.ZoneRole.SEGMENT, segment.segment_id)
        window = _read(node, zone, start, end - start)
        payload = window[inside : inside + location.length_bytes]
        assert xxhash.xxh3_64_intdigest(payload) == location.checksum, (
            f"{location} is not on {zone}, replica {index} of {len(zones)}"
        )


def is_alive(reader: index_port.IndexReader, group_id: int) -> bool:
    """Whether something leads to a group."""
    return bool(liveness.group_bytes(reader, group_id))


def check_stripe(
    reader: index_port.IndexReader,
    node: simulated_node.SimulatedNode,
    entry: l2p.Entry,
    *,
    damaged: Collection[ids.DeviceId],
) -> None:
    """All shards of a stripe are whole, but for those on damaged devices."""
    location = entry.location
    assert not isinstance(location, l2p_record.JournalLocation), location
    value = reader.get(media_records.group_key(location.group_id))
    assert value is not None, f"{location} is in a group that is not listed"
    group = media_records.unpack(media_records.GroupRecord, value)
    header_bytes = shard.header_bytes(location.chunk_bytes)
    headers: set[int] = set()
    chunks: dict[int, memoryview] = {}
    for index, zone in enumerate(media_records.zone_addresses(group.members)):
        if zone.device_id in damaged:
            continue
        _check_header(node, zone, index, zone_header.ZoneRole.GROUP, group.group_id)
        whole = _read(
            node, zone, location.stripe_offset_bytes, shard.shard_bytes(location.chunk_bytes)
        )
        header = shard.unpack(whole[:header_bytes])
        missing = f"{location} is not on {zone}, shard {index}"
        assert header is not None, missing
        assert (header.group_id, header.shard_index) == (group.group_id, index), missing
        assert shard.verify_blocks(header, 0, whole[header_bytes:]), missing
        headers.add(header.extent_address)
        chunks[index] = whole[header_bytes:]
    if all(index in chunks for index in range(group.data_shards)):
        (named,) = headers
        data = b"".join(chunks[index] for index in range(group.data_shards))
        _check_content(entry, named, memoryview(data)[: location.data_bytes])


def _check_content(entry: l2p.Entry, named_address: int, data: memoryview) -> None:
    """What the stripe of an entry says of it."""
    address, location = entry
    assert not isinstance(location, l2p_record.JournalLocation), location
    is_lz4 = isinstance(location, l2p_record.Lz4Location)
    if named_address == packed_stripe.ADDRESS:
        table = packed_stripe.unpack(data, data_bytes=location.data_bytes)
        assert table is not None, f"the table of the stripe of {entry} does not verify"
        part = packed_stripe.Entry(
            address, location.start_bytes, location.stored_bytes, location.length_bytes, is_lz4
        )
        assert part in table, f"{entry} is not in the table of its stripe"
    else:
        assert (named_address, location.start_bytes) == (address, 0), entry
        assert not is_lz4, entry
    if is_lz4:
        end = location.start_bytes + location.stored_bytes
        block = data[location.start_bytes : end]
        payload = compression.decompressed(block, length_bytes=location.length_bytes)
        assert len(payload) == location.length_bytes


def _check_header(
    node: simulated_node.SimulatedNode,
    zone: ids.ZoneAddress,
    index: int,
    role: zone_header.ZoneRole,
    owner_id: int,
) -> None:
    header = zone_header.unpack(_read(node, zone, 0, zone_header.ZONE_HEADER_BYTES))
    assert header is not None, f"{zone} has no header; it should name {role.name} {owner_id}"
    found = (header.role, header.owner_id, header.member_index)
    assert found == (role, owner_id, index), f"{zone} has the header of {found}"


def _read(
    node: simulated_node.SimulatedNode, zone: ids.ZoneAddress, offset_bytes: int, length_bytes: int
) -> memoryview:
    view = memoryview(bytearray(length_bytes))
    node.world.devices[zone.device_id].read(zone.zone_index, offset_bytes, view)
    return view
