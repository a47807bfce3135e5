"""Segments, stripe groups and left zones that nothing refers to any more, given back as space.

    1  zones reset, durably             index: owner has no bytes     a crash here: released again
    2  commit: records deleted          index: zones free

What may be released stands in docs/adr/0006. All of it is asked of the index three times: when it
is seen first, again after the grace right before the reset, and in the commit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import clock as clock_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, log_growth, zone_grace
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, event_publisher, events, ids

logger = logging.getLogger(__name__)

ROWS_PER_STEP_MAX: Final = 4096
OWNERS_PER_STEP_MAX: Final = 8
POLL_SECONDS_MAX: Final = 5.0
POLL_SECONDS_NEAR_FULL: Final = 0.25
"""While writers may be waiting for zones."""
NEARLY_FULL_SHARE: Final = 0.75
"""Of a device's zones in use."""
POLLS_PER_GRACE: Final = 10
LOOKING_SHARE_MAX: Final = 0.05
"""Part of the time that looking may take: a large store is looked at less often."""

_TABLES: Final = (media_records.GROUPS, media_records.SEGMENTS, media_records.ZONES)
_SEALED: Final = int(media_records.ZoneSetState.SEALED)
_ROLE_OF: Final = {
    media_records.GROUPS: zone_header.ZoneRole.GROUP,
    media_records.SEGMENTS: zone_header.ZoneRole.SEGMENT,
    media_records.ZONES: zone_header.ZoneRole.LEFT,
}


class Unreferenced(NamedTuple):
    """An entry of the index whose zones nothing refers to, as it was when it was looked at."""

    role: zone_header.ZoneRole
    owner_id: int
    key: bytes
    value: bytes
    zones: tuple[ids.ZoneAddress, ...]


class Usage(NamedTuple):
    """What a pass over the tables saw."""

    zones: Mapping[tuple[ids.DeviceId, int], int]
    """How many zones of a device serve in a role; free ones are not in it."""
    waiting_segments_count: int
    """Segments that only a checkpoint newer than ``covering_id`` lets go."""
    covering_id: int
    """The checkpoint the pass went by; 0: none is trusted."""


class Release:
    """``BackgroundWork`` of the one process that releases.

    Args:
        submit: Commits an operation and returns its result, or raises its error.
        run_blocking: Runs device commands that are not in the media port on a pool.
        trusted: The checkpoint that may stand for the log before it, if there is one.
        grace_seconds: How long a zone is left alone after nothing refers to it, for reads that
            looked it up before.
        reads_horizon: No read of the node goes by a lookup from before this moment, on ``clock``;
            0.0 when nobody can tell.
        reads_ended_seconds: The horizon must be so much later than the moment at which nothing
            referred to a zone any more, to end its grace.
        on_usage: Told after every pass what it saw.
    """

    name: Final = "release"

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        publisher: event_publisher.EventPublisher,
        run_blocking: Callable[..., Awaitable[object]],
        clock: clock_port.MonotonicClock,
        trusted: Callable[[], media_records.CheckpointRecord | None],
        grace_seconds: float = zone_grace.ZONE_GRACE_SECONDS,
        reads_horizon: Callable[[], float] = lambda: 0.0,
        reads_ended_seconds: float = zone_grace.READS_ENDED_SECONDS,
        on_usage: Callable[[Usage], None] = lambda usage: None,
    ) -> None:
        self._index = index
        self._media = media
        self._submit = submit
        self._publisher = publisher
        self._run_blocking = run_blocking
        self._clock = clock
        self._trusted = trusted
        self._grace_seconds = grace_seconds
        self._reads_horizon = reads_horizon
        self._reads_ended_seconds = reads_ended_seconds
        self._on_usage = on_usage
        self._position = _TABLES[0]
        """Key at which the pass over the tables goes on."""
        self._seen: dict[Unreferenced, float] = {}
        """Since when this process knows it, of what the pass has not reached yet."""
        self._seen_again: dict[Unreferenced, float] = {}
        """The same of what this pass has been at."""
        self._zones_counts: dict[tuple[bytes, int], int] = {}
        self._waiting_count = 0
        self._is_nearly_full = False
        """As the last pass saw it."""
        self._looked_seconds = 0.0
        """What the present pass has taken so far."""

    async def step(self) -> float:
        """Look at a part of the tables; release what is due in it.

        Raises:
            CouchestorError: the commit failed. The zones are empty and released by a later step.
        """
        covering = self._trusted()
        begun = self._clock.monotonic_seconds()
        due, ended = self._look(covering)
        self._looked_seconds += self._clock.monotonic_seconds() - begun
        if due:
            await self._release(due, covering)
        if not ended:
            return 0.0
        longest = POLL_SECONDS_NEAR_FULL if self._is_nearly_full else POLL_SECONDS_MAX
        poll = min(longest, self._grace_seconds / POLLS_PER_GRACE)
        now = self._clock.monotonic_seconds()
        shortest = min(self._grace_seconds, self._reads_ended_seconds)
        waits = [max(since + shortest - now, shortest / 2) for since in self._seen.values()]
        rest_seconds = self._looked_seconds * (1 / LOOKING_SHARE_MAX - 1)
        self._looked_seconds = 0.0
        return max(rest_seconds, min([poll, *waits]), 0.0)

    def _look(
        self, covering: media_records.CheckpointRecord | None
    ) -> tuple[list[Unreferenced], bool]:
        """What is due among the next rows, and whether they were the last ones of the tables."""
        now = self._clock.monotonic_seconds()
        horizon = self._reads_horizon() - self._reads_ended_seconds
        due: list[Unreferenced] = []
        rows_count = 0
        with self._index.read() as reader:
            while True:
                table = self._position[:1]
                _, stop = media_records.table_range(table)
                for key, value in reader.scan(self._position, stop):
                    if rows_count >= ROWS_PER_STEP_MAX or len(due) >= OWNERS_PER_STEP_MAX:
                        self._position = key
                        return due, False
                    rows_count += 1
                    self._count(reader, key, value, covering)
                    found = _unreferenced(reader, key, value, covering)
                    if found is None:
                        continue
                    since = self._seen.get(found, now)
                    self._seen_again[found] = since
                    if now - since >= self._grace_seconds or since <= horizon:
                        due.append(found)
                following = _TABLES.index(table) + 1
                if following == len(_TABLES):
                    break
                self._position = _TABLES[following]
        self._position = _TABLES[0]
        self._tell_usage(covering)
        # What was not met again is referred to once more, or gone.
        self._seen, self._seen_again = self._seen_again, {}
        return due, True

    def _count(
        self,
        reader: index_port.IndexReader,
        key: bytes,
        value: bytes,
        covering: media_records.CheckpointRecord | None,
    ) -> None:
        if key[:1] == media_records.ZONES:
            place = (key[1:-4], media_records.zone_role_of(value))
            self._zones_counts[place] = self._zones_counts.get(place, 0) + 1
        elif key[:1] == media_records.SEGMENTS:
            segment = media_records.unpack(media_records.SegmentRecord, value)
            if (
                segment.state == _SEALED
                and not _is_covered(segment.segment_id, covering)
                and not liveness.segment_bytes(reader, segment.segment_id)
            ):
                self._waiting_count += 1

    def _tell_usage(self, covering: media_records.CheckpointRecord | None) -> None:
        zones = {
            (ids.DeviceId(device.hex()), role): count
            for (device, role), count in self._zones_counts.items()
        }
        usage = Usage(zones, self._waiting_count, covering.checkpoint_id if covering else 0)
        used: dict[ids.DeviceId, int] = {}
        for (device_id, _), count in zones.items():
            used[device_id] = used.get(device_id, 0) + count
        self._is_nearly_full = any(
            used.get(identity.device_id, 0) > NEARLY_FULL_SHARE * identity.zone_count
            for identity in self._media.healthy_devices()
        )
        self._zones_counts, self._waiting_count = {}, 0
        self._on_usage(usage)

    async def _release(
        self, due: Sequence[Unreferenced], covering: media_records.CheckpointRecord | None
    ) -> None:
        written = await self._written_bytes(due)
        with self._index.read() as reader:
            due = [
                each
                for each in due
                if (value := reader.get(each.key)) is not None
                and _unreferenced(reader, each.key, value, covering) == each
            ]
        if not due:
            return
        for each in due:
            for zone in each.zones:
                # One that is away keeps its bytes: whoever is given the zone next empties it.
                with contextlib.suppress(errors.DeviceError):
                    await self._media.reset(zone)
        operation = commit_log.Operation(
            apply=lambda txn, _: _free(txn, due, covering), uses_reserve=True
        )
        for each in cast("list[Unreferenced]", await self._submit(operation)):
            for zone in each.zones:
                self._publisher.publish(
                    events.ZoneReset(
                        device_id=zone.device_id,
                        zone_index=zone.zone_index,
                        reclaimed_bytes=written.get(zone, 0),
                    )
                )

    async def _written_bytes(self, due: Sequence[Unreferenced]) -> dict[ids.ZoneAddress, int]:
        written: dict[ids.ZoneAddress, int] = {}
        for device_id in sorted({zone.device_id for each in due for zone in each.zones}):
            pointers = await self._run_blocking(log_growth.write_pointers, self._media, device_id)
            assert isinstance(pointers, dict), pointers
            for zone_index, pointer in pointers.items():
                written[ids.ZoneAddress(device_id, zone_index)] = pointer
        return written


def _unreferenced(
    reader: index_port.IndexReader,
    key: bytes,
    value: bytes,
    covering: media_records.CheckpointRecord | None,
) -> Unreferenced | None:
    """The entry as something to release, if nothing refers to its zones in this snapshot."""
    role = _ROLE_OF[key[:1]]
    if role is zone_header.ZoneRole.GROUP:
        group = media_records.unpack(media_records.GroupRecord, value)
        if group.state != _SEALED or liveness.group_bytes(reader, group.group_id):
            return None
        return Unreferenced(
            role, group.group_id, key, value, media_records.zone_addresses(group.members)
        )
    if role is zone_header.ZoneRole.SEGMENT:
        segment = media_records.unpack(media_records.SegmentRecord, value)
        if (
            segment.state != _SEALED
            or not _is_covered(segment.segment_id, covering)
            or liveness.segment_bytes(reader, segment.segment_id)
        ):
            return None
        return Unreferenced(
            role, segment.segment_id, key, value, media_records.zone_addresses(segment.members)
        )
    if media_records.zone_role_of(value) != zone_header.ZoneRole.LEFT:
        return None  # The usual case, without decoding: there are more zones than owners.
    zone = media_records.unpack(media_records.ZoneRecord, value)
    return Unreferenced(role, zone.owner_id, key, value, (media_records.zone_of_key(key),))


def _is_covered(segment_id: int, covering: media_records.CheckpointRecord | None) -> bool:
    """Whether a rebuild from the checkpoint never looks at the segment (docs/adr/0003)."""
    return (
        covering is not None
        and segment_id <= covering.sequence
        and all(segment_id != open_id for open_id, _ in covering.open_segments)
    )


def _free(
    txn: index_port.IndexWriter,
    due: Sequence[Unreferenced],
    covering: media_records.CheckpointRecord | None,
) -> list[Unreferenced]:
    """Give the zones back; returns what was. An entry that changed meanwhile stays.

    Raises:
        IndexCorruptError: something refers to zones that were already emptied.
    """
    free = [each for each in due if txn.get(each.key) == each.value]
    for each in free:
        if _unreferenced(txn, each.key, each.value, covering) != each:
            raise errors.IndexCorruptError(
                f"{each.role.name.lower()} {each.owner_id} is referred to again although it was "
                "sealed without live bytes; run `couchestor recover`",
                owner=each.owner_id,
            )
        for zone in each.zones:
            owned = txn.get(media_records.zone_key(zone))
            if owned is None or media_records.unpack(media_records.ZoneRecord, owned) != (
                media_records.ZoneRecord(int(each.role), each.owner_id)
            ):
                raise errors.IndexCorruptError(
                    f"zone {zone.zone_index} of device {zone.device_id} does not belong to "
                    f"{each.role.name.lower()} {each.owner_id}, which lists it; "
                    "run `couchestor recover`",
                    owner=each.owner_id,
                )
    for each in free:
        txn.delete(each.key)
        for zone in each.zones:
            txn.delete(media_records.zone_key(zone))
        if each.role is zone_header.ZoneRole.GROUP:
            start, stop = media_records.group_repairs_range(each.owner_id)
            for key, _ in list(txn.scan(start, stop)):
                txn.delete(key)
    return free
