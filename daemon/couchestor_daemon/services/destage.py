"""Emptying the log: payloads of its segments move into stripes.

A segment whose payloads have moved can be released once a checkpoint covers it. That is also how a
lost log replica is repaired: the payloads become stripes with all their shards, the mutations part
of a checkpoint, and the segment goes.

What is due, in this order:

    a segment with a replica on a device that is lost, or retiring     at once, also an open one
    a segment of which the scrub found a replica damaged               at once, also an open one
    the oldest sealed segment, while they hold more than allowed       down to ``log_bytes``
    a sealed segment first seen long ago                               after ``age_seconds``
    any segment, also an open one, while nothing is committed          after ``idle_seconds``
    any segment, also an open one, before the node stops               if it is asked for

An open segment stays open: its writer goes on in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import clock as clock_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, departures, evacuation, log_damage, relocation
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import units

POLL_SECONDS: Final = 1.0
LOOK_AGAIN_SECONDS: Final = 600.0
"""Before a segment is walked again in which something stayed, because it does not verify."""

_SEALED: Final = int(media_records.ZoneSetState.SEALED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestageLimits:
    """When segments are due."""

    log_bytes: int = 256 * units.MIB
    """Zones, of one replica, that sealed segments with live payloads may hold."""
    age_seconds: float = 3600.0
    idle_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Walk:
    """When a segment was last walked, and what could have changed since."""

    at: float
    state: int
    changes_count: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    record: media_records.SegmentRecord
    live_bytes: int
    is_damaged: bool
    """A replica of it has lost something."""

    @property
    def is_sealed(self) -> bool:
        return self.record.state == _SEALED


class Destage:
    """Background work (see ``services.background``).

    Args:
        source: Finds the live entries of a segment.
        should_empty: Whether everything is due, because the node stops.
    """

    name = "destage"

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        emptying: evacuation.Evacuation,
        source: Callable[[media_records.SegmentRecord], evacuation.Source],
        limits: DestageLimits,
        clock: clock_port.MonotonicClock,
        should_empty: Callable[[], bool] = lambda: False,
    ) -> None:
        self._index = index
        self._media = media
        self._evacuation = emptying
        self._source = source
        self._limits = limits
        self._clock = clock
        self._should_empty = should_empty
        self._is_emptying = False
        self._seen_at: dict[int, float] = {}
        """When this process first saw a segment sealed."""
        self._walked: dict[int, _Walk] = {}
        self._sequence = -1
        self._changes_count = 0
        """How often others' commits were noticed."""
        self._changed_at = 0.0

    async def step(self) -> float:
        """Move one stripe, if something is due. Returns seconds until the next look.

        Raises:
            CouchestorError: as ``Relocation.move``.
        """
        if self._should_empty() and not self._is_emptying:
            self._is_emptying = True
            self._walked.clear()  # The walk that the stop has cut off is begun again.
        self._notice_commits()
        moved = await self._evacuation.step(self._next_source)
        if moved is None:
            return POLL_SECONDS
        self._pass_over_own_commit(moved)
        return 0.0

    # -- what is due ----------------------------------------------------------------------------

    def _next_source(self) -> evacuation.Source | None:
        now = self._clock.monotonic_seconds()
        found = self._due(self._candidates(), now)
        if found is None:
            return None
        record = found.record
        self._walked[record.segment_id] = _Walk(now, record.state, self._changes_count)
        return self._source(record)

    def _candidates(self) -> list[_Candidate]:
        """Segments with live payloads, oldest first."""
        start, stop = media_records.table_range(media_records.SEGMENTS)
        with self._index.read() as reader:
            records = [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(start, stop)
            ]
            damaged = log_damage.segments(reader)
            found = [
                _Candidate(
                    record,
                    liveness.segment_bytes(reader, record.segment_id),
                    record.segment_id in damaged,
                )
                for record in records
            ]
        listed = {record.segment_id for record in records}
        self._seen_at = {key: at for key, at in self._seen_at.items() if key in listed}
        self._walked = {key: walk for key, walk in self._walked.items() if key in listed}
        return [candidate for candidate in found if candidate.live_bytes]

    def _due(self, candidates: Sequence[_Candidate], now: float) -> _Candidate | None:
        sealed = [candidate for candidate in candidates if candidate.is_sealed]
        for candidate in sealed:
            self._seen_at.setdefault(candidate.record.segment_id, now)
        fresh = [candidate for candidate in candidates if not self._was_walked(candidate, now)]
        for candidate in fresh:
            members = candidate.record.members
            if departures.has_lost_member(self._media, members) or departures.has_retiring_member(
                self._media, members
            ):
                return candidate
        for candidate in candidates:
            # What is written to an open one from now on is whole: once is enough for a while.
            walk = self._walked.get(candidate.record.segment_id)
            if candidate.is_damaged and (walk is None or now - walk.at >= LOOK_AGAIN_SECONDS):
                return candidate
        held_bytes = self._zone_bytes() * sum(not self._was_walked(one, now) for one in sealed)
        is_idle = now - self._changed_at >= self._limits.idle_seconds
        for candidate in fresh:
            if candidate.is_sealed and (
                held_bytes > self._limits.log_bytes
                or now - self._seen_at[candidate.record.segment_id] >= self._limits.age_seconds
            ):
                return candidate
        return fresh[0] if fresh and (is_idle or self._is_emptying) else None

    def _was_walked(self, candidate: _Candidate, now: float) -> bool:
        """Whether there is nothing to find in it that was not found a short while ago."""
        walk = self._walked.get(candidate.record.segment_id)
        if walk is None or walk.state != candidate.record.state:
            return False
        if candidate.is_sealed:
            return now - walk.at < LOOK_AGAIN_SECONDS
        return walk.changes_count == self._changes_count

    def _zone_bytes(self) -> int:
        return max(
            (identity.zone_capacity_bytes for identity in self._media.healthy_devices()), default=0
        )

    # -- idleness -------------------------------------------------------------------------------

    def _applied(self) -> int:
        with self._index.read() as reader:
            return int(commit_log.applied_sequence(reader))

    def _notice_commits(self) -> None:
        applied = self._applied()
        if applied != self._sequence:
            self._sequence = applied
            self._changes_count += 1
            self._changed_at = self._clock.monotonic_seconds()

    def _pass_over_own_commit(self, moved: relocation.Moved) -> None:
        """A stripe of our own does not make the node busy."""
        if moved.stripe_bytes:
            self._sequence = self._applied()
