"""Taking space back from groups that are half dead: what lives in them moves, so that they go.

Victims are chosen among SEALED groups with live bytes:

    groups that lost members for whose place no device is free (``stranded``)       see below
    groups that have to go (``must_move``: too narrow, on a retiring device, ...)   always
    groups of which more than ``dead_percent`` is dead                              always
    the best of the others, by cost and benefit                                     when room is low

Cost and benefit after Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured
File System" (1992): age x dead share / live share, for what is moved is read and written once and
what is dead is neither. What has lived long goes on living, so its space stays free for longer once
it is compact: an old group is worth moving at a smaller dead share than a young one, whose objects
are still being deleted. Group ids are drawn from the node's sequence, so they tell the age.

A group that this process has filled is as compact as its extents allow, which for very small ones
is not much: their table and padding are as long as they are. Moving it again would gain nothing,
for ever; so it is no victim before a part of what was alive in it has died.

Stranded groups come first, those that can lose least before all others, because redundancy comes
before space. As they move to groups with fewer data shards, they take more room than they leave: so
that writes go on, no further one is begun on while fewer than ``STRANDED_ROOM_GROUPS_MIN`` groups
can be opened; what is half dead is moved then, which makes room.

Room is low when fewer groups can be opened than ``free_percent`` of a device's zones; groups that
are empty and only wait for their release count as room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import clock as clock_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, evacuation, stranded_groups, zone_allocation
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import geometry, ids

POLL_SECONDS: Final = 10.0
POLL_SECONDS_NEAR: Final = 1.0
"""While room is not far from low: a busy node takes a group a second or more."""
LOOK_AGAIN_SECONDS: Final = 600.0
"""Before a group is walked again in which something stayed, because it does not verify."""
DEAD_SHARE_MIN: Final = 0.1
"""Below it a group is not moved for its space: headers and padding are as much of a new one."""

COMPACT_SHARE_MIN: Final = 0.25
"""A group of our own with less was sealed before it was full."""

STRANDED_ROOM_GROUPS_MIN: Final = 3
"""Two that the live bytes of one may reach into, and one more for those who write meanwhile."""

Strandings = Callable[
    [index_port.IndexReader, Sequence[media_records.GroupRecord]],
    Mapping[int, stranded_groups.Stranded],
]
MustMove = Callable[[index_port.IndexReader, media_records.GroupRecord], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimLimits:
    """When groups are victims."""

    dead_percent: int = 50
    free_percent: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class StrandedProgress:
    """What people see of the groups that are moved because nothing can replace what they lost."""

    groups_count: int = 0
    """With live bytes in them, still."""
    lost_device_ids: frozenset[ids.DeviceId] = frozenset()
    """Those whose place no device is free to take."""
    waits_for_room: bool = False


class Victim(NamedTuple):
    """A sealed group with live bytes."""

    record: media_records.GroupRecord
    live_share: float
    """Of the data bytes that its zones can hold."""
    must_move: bool
    is_compact: bool = False
    """Whether moving it gains nothing."""
    redundancy_count: int | None = None
    """Of a stranded group: further members that it may lose."""

    @property
    def dead_share(self) -> float:
        """What moving the group gives back."""
        return 1.0 - self.live_share

    def benefit(self, applied_sequence: int) -> float:
        """What is gained for what it costs; the higher the better."""
        age = applied_sequence - self.record.group_id + 1
        return age * self.dead_share / self.live_share


def choose(
    victims: Sequence[Victim],
    *,
    applied_sequence: int,
    room_is_low: bool,
    limits: ReclaimLimits,
    has_room_for_stranded: bool = True,
) -> Victim | None:
    """The next group to move, or None."""
    stranded = [
        (victim.redundancy_count, -victim.benefit(applied_sequence), victim)
        for victim in victims
        if victim.redundancy_count is not None
    ]
    if stranded and has_room_for_stranded:
        return min(stranded, key=lambda found: found[:2])[2]
    forced = [victim for victim in victims if victim.must_move]
    loose = [victim for victim in victims if not victim.is_compact]
    mostly_dead = [victim for victim in loose if 100 * victim.dead_share >= limits.dead_percent]
    worthwhile = [victim for victim in loose if victim.dead_share >= DEAD_SHARE_MIN]
    # Space first, when that is short: moving what has to go anyhow takes more of it at first.
    order = [mostly_dead, worthwhile if room_is_low else [], forced]
    for candidates in order:
        if candidates:
            return max(candidates, key=lambda victim: victim.benefit(applied_sequence))
    return None


class Reclaim:
    """Background work (see ``services.background``).

    Args:
        source: Finds the live entries of a group.
        writer: Slot of this process: whose groups it fills.
        must_move: Whether a sealed group has to go whatever is dead in it (see ``departures``).
        stranded: Which of some groups have lost members that nothing can replace.
        reserve_zones_count: Zones of each device that are no room for groups.
        report: Told when what is known of stranded groups has changed.
    """

    name = "reclaim"

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        emptying: evacuation.Evacuation,
        source: Callable[[media_records.GroupRecord], evacuation.Source],
        writer: str,
        must_move: MustMove,
        stranded: Strandings,
        wanted: geometry.StripeGeometry,
        reserve_zones_count: int,
        limits: ReclaimLimits,
        clock: clock_port.MonotonicClock,
        report: Callable[[StrandedProgress], None] = lambda progress: None,
    ) -> None:
        self._index = index
        self._media = media
        self._evacuation = emptying
        self._source = source
        self._writer = writer
        self._must_move = must_move
        self._stranded = stranded
        self._wanted = wanted
        self._reserve_zones_count = reserve_zones_count
        self._limits = limits
        self._clock = clock
        self._report = report
        self._shown = StrandedProgress()
        self._walked_at: dict[int, float] = {}
        self._first_live: dict[int, int] = {}
        """Live bytes of a group of our own when it was first seen sealed."""
        self._room_is_near = False
        self._room_is_scarce = False

    async def step(self) -> float:
        """Move one stripe, if there is a victim. Returns seconds until the next look.

        Raises:
            CouchestorError: as ``Relocation.move``.
        """
        moved = await self._evacuation.step(self._next_source)
        if moved is not None:
            return 0.0
        return POLL_SECONDS_NEAR if self._room_is_near else POLL_SECONDS

    @property
    def is_urgent(self) -> bool:
        """Whether writers are about to be refused for want of zones: then moving should not wait
        for its pace. As of the last look."""
        return self._room_is_scarce

    def _next_source(self) -> evacuation.Source | None:
        now = self._clock.monotonic_seconds()
        with self._index.read() as reader:
            records = self._sealed(reader)
            live = {
                record.group_id: liveness.group_bytes(reader, record.group_id) for record in records
            }
            stranded = self._stranded(
                reader, [record for record in records if live[record.group_id]]
            )
            victims = [
                Victim(
                    record,
                    min(live[record.group_id] / self._room_bytes(record), 1.0),
                    self._must_move(reader, record),
                    self._is_compact(record, live[record.group_id]),
                    stranded[record.group_id].redundancy_count
                    if record.group_id in stranded
                    else None,
                )
                for record in records
                if live[record.group_id] and not self._was_walked(record, now)
            ]
            empty_count = sum(not live_bytes for live_bytes in live.values())
            room_count = self._room_groups_count(reader)
            low_count = self._low_count()
            self._room_is_near = room_count < 2 * low_count
            self._room_is_scarce = 2 * room_count < low_count
            chosen = choose(
                victims,
                applied_sequence=commit_log.applied_sequence(reader),
                room_is_low=room_count + empty_count < low_count,
                limits=self._limits,
                has_room_for_stranded=room_count >= STRANDED_ROOM_GROUPS_MIN,
            )
        self._show(stranded, room_count)
        self._walked_at = {key: at for key, at in self._walked_at.items() if key in live}
        self._first_live = {key: count for key, count in self._first_live.items() if key in live}
        if chosen is None:
            return None
        self._walked_at[chosen.record.group_id] = now
        return self._source(chosen.record)

    def _is_compact(self, record: media_records.GroupRecord, live_bytes: int) -> bool:
        if record.writer != self._writer:
            return False
        first_bytes = self._first_live.setdefault(record.group_id, live_bytes)
        return (
            first_bytes >= COMPACT_SHARE_MIN * self._room_bytes(record)
            and live_bytes > (1 - DEAD_SHARE_MIN) * first_bytes
        )

    def _was_walked(self, record: media_records.GroupRecord, now: float) -> bool:
        # Nothing is added to a sealed group: what a walk left does not verify, or is on its way.
        walked_at = self._walked_at.get(record.group_id)
        return walked_at is not None and now - walked_at < LOOK_AGAIN_SECONDS

    @staticmethod
    def _sealed(reader: index_port.IndexReader) -> list[media_records.GroupRecord]:
        start, stop = media_records.table_range(media_records.GROUPS)
        records = [
            media_records.unpack(media_records.GroupRecord, value)
            for _, value in reader.scan(start, stop)
        ]
        return [record for record in records if record.state == media_records.ZoneSetState.SEALED]

    def _room_bytes(self, record: media_records.GroupRecord) -> int:
        """Data bytes that the zones of a group can hold, headers of shards aside."""
        capacity = max(
            (identity.zone_capacity_bytes for identity in self._media.healthy_devices()),
            default=2 * zone_header.ZONE_HEADER_BYTES,
        )
        return record.data_shards * (capacity - zone_header.ZONE_HEADER_BYTES)

    def _room_groups_count(self, reader: index_port.IndexReader) -> int:
        """Groups of the present geometry that writers can open."""
        devices = self._media.healthy_devices()
        wanted = geometry.shrink_to_healthy(self._wanted, len(devices))
        if wanted is None:
            return 0
        room = sorted(
            (
                len(zone_allocation.free_zones(reader, identity))
                - zone_allocation.kept_free_count(
                    identity, self._reserve_zones_count, leaves_moving_room=True
                )
                for identity in devices
            ),
            reverse=True,
        )
        return max(room[wanted.shards_count - 1], 0)

    def _low_count(self) -> float:
        """Fewer groups than this are little room; 0: no group can be opened anyhow."""
        devices = self._media.healthy_devices()
        if geometry.shrink_to_healthy(self._wanted, len(devices)) is None:
            return 0.0
        zones_count = min(identity.zone_count for identity in devices)
        return self._limits.free_percent * zones_count / 100

    def _show(self, stranded: Mapping[int, stranded_groups.Stranded], room_count: int) -> None:
        lost = frozenset[ids.DeviceId]().union(
            *(each.lost_device_ids for each in stranded.values())
        )
        fresh = StrandedProgress(
            groups_count=len(stranded),
            lost_device_ids=lost,
            waits_for_room=bool(stranded) and room_count < STRANDED_ROOM_GROUPS_MIN,
        )
        if fresh != self._shown:
            self._shown = fresh
            self._report(fresh)
