"""Whether the tables of the index that speak of media fit one another.

Shared by the scrub of a running node and by ``couchestor check``. Everything here looks at one
snapshot, so a running node gives no false findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from couchestor_daemon.formats import index_keys, l2p_record, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import notice_queue
from couchestor_daemon.services.catalogue import liveness, usage
from couchestor_domain import errors, ids


class Finding(NamedTuple):
    """Something that is not as it should be."""

    text: str
    """What is wrong, where, and what to do."""
    is_damage: bool
    """Whether bytes are lost or may be; else something is only left over."""
    zone: ids.ZoneAddress | None = None
    """A zone that nothing owns, safe to be freed while the node is stopped."""
    about: str = ""
    """What it is about, if the text also says how much: every look that finds it agrees on this."""

    @property
    def subject(self) -> str:
        """The same in every look that finds this."""
        return self.about or self.text


class Leads(NamedTuple):
    """An entry of the L2P that leads to a stripe."""

    address: int
    value: bytes
    """The entry as it stands in the index."""
    group_id: int
    stripe_offset_bytes: int
    length_bytes: int


class Slice(NamedTuple):
    """Findings of a part of the L2P, and where the next part begins."""

    findings: list[Finding]
    next_address: int | None
    """None: this was the last part."""
    entries: list[Leads]
    """Those of them that lead to groups that were asked for."""


def zone_findings(reader: index_port.IndexReader) -> Iterator[Finding]:
    """Zones whose owner does not exist or does not list them, and members that are not owned."""
    expected: dict[bytes, tuple[int, int]] = {}
    for zone, owner in _members(reader):
        key = media_records.zone_key(zone)
        if key in expected:
            yield Finding(
                f"{name_of(zone)} is a member of {_owner(*owner)} and of {_owner(*expected[key])}: "
                "one of them has lost its bytes there; a scrub says which shards",
                True,
            )
        expected[key] = owner
    start, stop = media_records.table_range(media_records.ZONES)
    for key, value in reader.scan(start, stop):
        record = media_records.unpack(media_records.ZoneRecord, value)
        zone = media_records.zone_of_key(key)
        if key in expected:
            owner = expected.pop(key)
            if owner == (record.role, record.owner_id):
                continue
            yield Finding(
                f"{name_of(zone)} is a member of {_owner(*owner)}, but is recorded as that of "
                f"{_owner(record.role, record.owner_id)}; run `couchestor recover`",
                True,
            )
        elif record.role == zone_header.ZoneRole.REBUILD:
            yield Finding(
                f"{name_of(zone)} was being filled to take the place of a member of group "
                f"{record.owner_id} when the node stopped; its next start frees it",
                False,
            )
        elif record.role == zone_header.ZoneRole.TEST:
            yield Finding(
                f"{name_of(zone)} was being written to by a test of its device when the node "
                "stopped; its next start frees it",
                False,
            )
        elif record.role != zone_header.ZoneRole.LEFT:
            yield Finding(
                f"{name_of(zone)} is kept for {_owner(record.role, record.owner_id)}, which does "
                "not exist or does not list it; `couchestor check --repair` frees it",
                False,
                zone,
            )
    for key, owner in expected.items():
        yield Finding(
            f"{name_of(media_records.zone_of_key(key))} is a member of {_owner(*owner)}, but is "
            "recorded as free, so it may be given away; run `couchestor recover`",
            True,
        )


def repair_findings(reader: index_port.IndexReader, group_ids: list[int]) -> Iterator[Finding]:
    """Groups in the repair queue that do not exist."""
    for group_id in group_ids:
        if reader.get(media_records.group_key(group_id)) is None:
            yield Finding(
                f"shards of group {group_id} wait for repair, and there is no such group any more; "
                "the running node drops them, and so does `couchestor check --repair`",
                False,
            )


def notice_findings(reader: index_port.IndexReader) -> Iterator[Finding]:
    """Notices that are not counted as they wait, or cannot be read. Looks at every one."""
    try:
        for text in notice_queue.miscounted(reader):
            yield Finding(f"{text}; run `couchestor recover`", False)
    except errors.IndexCorruptError as exc:
        yield Finding(exc.message, True)


def l2p_slice(
    reader: index_port.IndexReader,
    *,
    start_address: int,
    entries_count: int,
    groups: frozenset[int] = frozenset(),
) -> Slice:
    """Look at some entries of the L2P: each must lead to a group or segment that is listed.

    Args:
        groups: Entries that lead to these are given back, for a look at the media.
    """
    findings: list[Finding] = []
    entries: list[Leads] = []
    known: dict[bytes, bool] = {}
    _, stop = media_records.table_range(l2p_record.TABLE)
    start = l2p_record.key(ids.ExtentAddress(start_address))
    for number, (key, value) in enumerate(reader.scan(start, stop)):
        address = l2p_record.address_of(key)
        if number == entries_count:
            return Slice(findings, int(address), entries)
        location = l2p_record.unpack(value)
        if isinstance(location, l2p_record.JournalLocation):
            owner_key = media_records.segment_key(location.segment_id)
            owner = f"log segment {location.segment_id}"
        else:
            owner_key = media_records.group_key(location.group_id)
            owner = f"group {location.group_id}"
            if location.group_id in groups:
                entries.append(
                    Leads(
                        int(address),
                        value,
                        location.group_id,
                        location.stripe_offset_bytes,
                        location.length_bytes,
                    )
                )
        if owner_key not in known:
            known[owner_key] = reader.get(owner_key) is not None
        if not known[owner_key]:
            findings.append(
                Finding(
                    f"{location.length_bytes} bytes at address {address} are said to be in "
                    f"{owner}, which does not exist; run `couchestor recover`",
                    True,
                )
            )
    return Slice(findings, None, entries)


def live_bytes_findings(reader: index_port.IndexReader) -> Iterator[Finding]:
    """Counters of live bytes that do not say what the L2P says. Looks at every entry."""
    expected = liveness.counted(
        l2p_record.unpack(value)
        for _, value in reader.scan(*media_records.table_range(l2p_record.TABLE))
    )
    for key, value in reader.scan(*media_records.table_range(index_keys.LIVE_BYTES)):
        counted = int(index_keys.U64.unpack(value)[0])
        mapped = expected.pop(key, 0)
        if counted != mapped:
            yield _miscounted(key, counted, mapped)
    for key, mapped in expected.items():
        yield _miscounted(key, 0, mapped)


def usage_findings(reader: index_port.IndexReader) -> Iterator[Finding]:
    """Counters of quotas that do not say what buckets hold. Looks at every version."""
    for whose, said, there in usage.miscounted(reader):
        yield Finding(
            f"{whose} is counted as holding {said.objects_count} objects with {said.size_bytes}"
            f" bytes, and holds {there.objects_count} with {there.size_bytes}: its quota is judged"
            f" by the wrong number; `couchestor quota recount` with --{whose.partition(' ')[0]}"
            " counts anew",
            True,
            about=f"usage of {whose}",
        )


def _miscounted(key: bytes, counted: int, mapped: int) -> Finding:
    kind = "group" if key[1:2] == b"g" else "log segment"
    owner_id = int(index_keys.U64.unpack(key[2:])[0])
    return Finding(
        f"{counted} bytes of {kind} {owner_id} are counted as alive, and {mapped} are; too few "
        "would let its zones be emptied: run `couchestor recover`",
        True,
        about=f"live bytes of {kind} {owner_id}",
    )


def _members(
    reader: index_port.IndexReader,
) -> Iterator[tuple[ids.ZoneAddress, tuple[int, int]]]:
    for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS)):
        segment = media_records.unpack(media_records.SegmentRecord, value)
        for zone in media_records.zone_addresses(segment.members):
            yield zone, (int(zone_header.ZoneRole.SEGMENT), segment.segment_id)
    for _, value in reader.scan(*media_records.table_range(media_records.GROUPS)):
        group = media_records.unpack(media_records.GroupRecord, value)
        for zone in media_records.zone_addresses(group.members):
            yield zone, (int(zone_header.ZoneRole.GROUP), group.group_id)
    for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS)):
        record = media_records.unpack(media_records.CheckpointRecord, value)
        for part in record.parts:
            for zone in media_records.zone_addresses(part):
                yield zone, (int(zone_header.ZoneRole.CHECKPOINT), record.checkpoint_id)


def name_of(zone: ids.ZoneAddress) -> str:
    """A zone in a sentence."""
    return f"zone {zone.zone_index} of device {zone.device_id}"


def _owner(role: int, owner_id: int) -> str:
    names = {
        int(zone_header.ZoneRole.SEGMENT): "log segment",
        int(zone_header.ZoneRole.GROUP): "group",
        int(zone_header.ZoneRole.CHECKPOINT): "checkpoint",
        int(zone_header.ZoneRole.LEFT): "the former members of group",
        int(zone_header.ZoneRole.REBUILD): "a rebuild of group",
    }
    return f"{names.get(role, f'an owner of the unknown kind {role}')} {owner_id}"
