"""Zone headers say only what may stand on media."""

from __future__ import annotations

import pytest

from couchestor_daemon.formats import frame, zone_header
from couchestor_domain import ids

MEMBERS = tuple(
    ids.ZoneAddress(ids.DeviceId(f"{number:032x}"), ids.ZoneIndex(number)) for number in range(3)
)


@pytest.mark.parametrize("role", sorted(zone_header.KNOWN_ROLES))
def test_a_header_reads_back(role: zone_header.ZoneRole) -> None:
    header = zone_header.ZoneHeader(role, 1, 2, 1, 77, 5, MEMBERS)
    assert zone_header.unpack(memoryview(zone_header.pack(header))) == header


@pytest.mark.parametrize(
    "role",
    [
        zone_header.ZoneRole.LEFT,
        zone_header.ZoneRole.REBUILD,
        zone_header.ZoneRole.TEST,
        99,
    ],
)
def test_what_only_the_index_knows_is_not_read_from_media(role: int) -> None:
    payload = zone_header.FIXED.pack(role, 0, 0, 2, 1, 77, 5)
    block = frame.pack(zone_header.MAGIC, version=zone_header.VERSION, payload=payload)
    assert zone_header.unpack(memoryview(block.ljust(4096, b"\0"))) is None


@pytest.mark.parametrize("change_bytes", [-61, -44, -20, -1, 1, 20])
def test_a_header_of_another_length_than_its_members_take_is_none(change_bytes: int) -> None:
    header = zone_header.ZoneHeader(zone_header.ZoneRole.GROUP, 1, 2, 1, 77, 5, MEMBERS)
    whole = zone_header.pack(header)
    _, _, _, length, _ = frame.FRAME.unpack_from(whole)
    payload = whole[frame.FRAME_BYTES : frame.FRAME_BYTES + length + change_bytes]
    block = frame.pack(zone_header.MAGIC, version=zone_header.VERSION, payload=payload)
    assert zone_header.unpack(memoryview(block.ljust(4096, b"\0"))) is None
