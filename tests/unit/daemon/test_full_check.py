"""What ``couchestor check`` says of index and media, over devices in memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from shard_node import ShardNode

from couchestor_daemon.formats import index_keys, l2p_record, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import full_check, index_audit, leftovers
from couchestor_domain import geometry, ids, units

SHAPE = geometry.StripeGeometry(4, 2)


class Bench(ShardNode):
    """A stopped node."""

    manner = full_check.Manner()

    def __init__(self, **other: Any) -> None:
        super().__init__(SHAPE, **{"devices_count": 6, **other})

    async def check(self) -> list[index_audit.Finding]:
        return await full_check.FullCheck(self.tools, manner=self.manner).findings()

    async def filled(self) -> list[ids.ExtentAddress]:
        addresses = [await self.put(length) for length in (1, 60_000, 200_000, 16_384)]
        await self.seal()
        addresses.append(await self.put(90_000))
        await self.put_small(5000)
        return addresses


@pytest.fixture
def bench() -> Bench:
    return Bench()


def only(found: list[index_audit.Finding]) -> index_audit.Finding:
    """The one finding, a sentence that says what to do."""
    (finding,) = found
    assert len(finding.text.split()) > 8
    return finding


async def test_nothing_is_said_of_what_is_whole(bench: Bench) -> None:
    await bench.filled()
    assert await bench.check() == []


async def test_damaged_shards_are_named_by_member(bench: Bench) -> None:
    addresses = await bench.filled()
    for address in addresses[1:3]:
        bench.rot(address, 2)
    finding = only(await bench.check())
    group = bench.records()[0]
    zone = media_records.zone_addresses(group.members)[2]
    assert finding.is_damage
    assert finding.text.startswith(f"2 shards of member 2 of group {group.group_id}")
    assert f"zone {zone.zone_index} of device {zone.device_id}" in finding.text
    assert f"of stripe {bench.location(addresses[1]).stripe_offset_bytes}" in finding.text


async def test_damage_that_nobody_misses_is_not_told(bench: Bench) -> None:
    addresses = await bench.filled()
    bench.rot(addresses[1], 2)
    await bench.delete(addresses[1])
    assert await bench.check() == []


async def test_lost_stripes_are_told_with_their_bytes(bench: Bench) -> None:
    addresses = await bench.filled()
    for index in range(6):
        bench.rot(addresses[1], index, inside_bytes=30)
    finding = only(await bench.check())
    assert finding.text.startswith("60000 live bytes are lost")


async def test_members_on_missing_devices_are_counted(bench: Bench) -> None:
    await bench.filled()
    gone = [ids.DeviceId(bench.records()[0].members[index][0]) for index in range(3)]
    bench.lose(gone[0])
    found = [finding for finding in await bench.check() if "groups have a member" in finding.text]
    assert only(found).text.startswith("2 groups have a member on device " + gone[0])
    for device_id in gone[1:]:
        bench.lose(device_id)
    beyond = [finding for finding in await bench.check() if "cannot be read" in finding.text]
    assert len(beyond) == 2
    assert "276385 live bytes of group" in beyond[0].text


async def test_rot_in_the_log_is_told(bench: Bench) -> None:
    address = await bench.put_small(9000)
    zone = media_records.zone_addresses(bench.segment_of(address).members)[1]
    bench.content(zone)[bench.journal(address).offset_bytes] ^= 0xFF
    finding = only(await bench.check())
    assert finding.is_damage
    assert zone.device_id in finding.text


async def spoil(bench: Bench, key: bytes, value: bytes | None) -> None:
    def apply(txn: index_port.IndexWriter) -> None:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)

    await bench.change(apply)


async def test_a_zone_that_nothing_owns_is_freed_when_asked(bench: Bench) -> None:
    await bench.filled()
    stray = ids.ZoneAddress(next(iter(bench.devices)), ids.ZoneIndex(60))
    owner = media_records.ZoneRecord(int(zone_header.ZoneRole.GROUP), 4712)
    await spoil(bench, media_records.zone_key(stray), media_records.pack(owner))
    await bench.queue_repair(4713, 4096, 1)
    found = await bench.check()
    assert [finding.is_damage for finding in found] == [False, False]
    assert found[0].zone == stray
    assert "4713" in found[1].text
    with bench.index.read() as reader:
        planned = leftovers.described(reader)
    assert len(planned) == 2
    await bench.commits.submit(leftovers.removal())
    assert await bench.check() == []
    assert bench.repairs() == []
    assert stray not in bench.zone_roles()


async def test_an_unfinished_rebuild_is_left_to_the_node(bench: Bench) -> None:
    await bench.filled()
    zone = ids.ZoneAddress(next(iter(bench.devices)), ids.ZoneIndex(60))
    owner = media_records.ZoneRecord(int(zone_header.ZoneRole.REBUILD), bench.records()[0].group_id)
    await spoil(bench, media_records.zone_key(zone), media_records.pack(owner))
    assert not only(await bench.check()).is_damage
    await bench.commits.submit(leftovers.removal())
    assert bench.zone_roles()[zone] is zone_header.ZoneRole.REBUILD


async def test_a_zone_left_by_a_rebuild_is_no_finding(bench: Bench) -> None:
    await bench.filled()
    zone = ids.ZoneAddress(next(iter(bench.devices)), ids.ZoneIndex(60))
    owner = media_records.ZoneRecord(int(zone_header.ZoneRole.LEFT), bench.records()[0].group_id)
    await spoil(bench, media_records.zone_key(zone), media_records.pack(owner))
    assert await bench.check() == []


async def test_members_that_are_recorded_as_free_are_damage(bench: Bench) -> None:
    await bench.filled()
    zone = media_records.zone_addresses(bench.records()[0].members)[4]
    await spoil(bench, media_records.zone_key(zone), None)
    finding = only(await bench.check())
    assert finding.is_damage
    assert "recorded as free" in finding.text


async def test_a_zone_with_two_owners_is_damage(bench: Bench) -> None:
    await bench.filled()
    first, second = bench.records()
    shared = msgspec.structs.replace(second, members=(first.members[0], *second.members[1:]))
    await spoil(bench, media_records.group_key(second.group_id), media_records.pack(shared))
    assert any(
        "is a member of group" in finding.text and finding.is_damage
        for finding in await bench.check()
    )


@pytest.mark.parametrize("kind", ["group", "log segment"])
async def test_entries_that_lead_nowhere_are_damage(bench: Bench, kind: str) -> None:
    await bench.filled()
    location: l2p_record.Location = (
        l2p_record.StripeLocation(4711, 4096, 4096, 1000, 0, 1000)
        if kind == "group"
        else l2p_record.JournalLocation(4711, 4096, 1000, 1)
    )
    await spoil(bench, l2p_record.key(ids.ExtentAddress(5)), l2p_record.pack(location))
    found = await bench.check()
    assert any(f"said to be in {kind} 4711" in finding.text for finding in found)
    assert all(finding.is_damage for finding in found)


async def test_live_bytes_that_are_miscounted_are_damage(bench: Bench) -> None:
    await bench.filled()
    group_id = bench.records()[0].group_id
    await spoil(bench, index_keys.group_live(group_id), index_keys.U64.pack(7))
    found = [finding for finding in await bench.check() if "counted as alive" in finding.text]
    assert only(found).text.startswith(f"7 bytes of group {group_id} are counted as alive, and")


async def test_the_pool_is_whole_afterwards(bench: Bench) -> None:
    await bench.filled()
    await bench.check()
    assert bench.pool.lent_bytes == 0
    assert bench.zone_bytes == units.MIB
