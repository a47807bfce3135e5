"""When checkpoints are taken, and what people see of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from couchestor_daemon.adapters import worker_threads
from couchestor_daemon.app import metrics
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import checkpoint_writer, checkpoints, release
from couchestor_domain import errors, units

POLL_SECONDS: Final = 3.0
RETRY_SECONDS_MIN: Final = 30.0
RETRY_SECONDS_MAX: Final = 3600.0
SHORT_DIVISOR: Final = 4
"""Space is short when fewer than one in so many zones of a device are free beyond the reserve."""
SEGMENTS_PER_IMAGE_ZONE_MIN: Final = 2
"""A checkpoint for the sake of space lets go of so many segments for each zone of a copy."""

_log = logging.getLogger("couchestor.checkpoints")

Report = Callable[[dict[str, object]], None]


def is_due(
    since_bytes: int,
    newest: media_records.CheckpointRecord | None,
    *,
    log_bytes: int,
    log_percent: int,
    copies_lost: bool = False,
    replicas_lost: bool = False,
    space_is_short: bool = False,
    departing: bool = False,
) -> bool:
    """Whether another image is worth its writing: the log has grown enough; or the newest one, or
    the log behind it, is on fewer devices than it should be, and an image can be on enough; or
    zones are needed, or a device is to be emptied, that only a newer one lets go."""
    if copies_lost or replicas_lost or space_is_short or departing:
        return True
    image_bytes = newest.image_bytes if newest else 0
    return since_bytes > max(log_bytes, image_bytes * log_percent // 100)


def gives_space_back(
    usage: release.Usage | None,
    newest: media_records.CheckpointRecord | None,
    devices: Sequence[device_port.DeviceIdentity],
    *,
    reserve_zones_count: int,
) -> bool:
    """Whether some device runs out of zones, and a checkpoint newer than ``newest`` lets more of
    them go than it takes.

    Args:
        usage: What the last pass of the release saw; of no use when it went by an older one.
        devices: Those that may be given zones.
    """
    if usage is None or usage.covering_id != (newest.checkpoint_id if newest else 0):
        return False
    zone_bytes = min((device.zone_capacity_bytes for device in devices), default=1)
    image_zones_count = 1 + (newest.image_bytes if newest else 0) // zone_bytes
    if usage.waiting_segments_count < SEGMENTS_PER_IMAGE_ZONE_MIN * image_zones_count:
        return False
    used: dict[str, int] = {}
    for (device_id, _), count in usage.zones.items():
        used[device_id] = used.get(device_id, 0) + count
    return any(
        device.zone_count - used.get(device.device_id, 0) - reserve_zones_count
        < device.zone_count // SHORT_DIVISOR
        for device in devices
    )


class CheckpointSchedule:
    """Looks every few seconds how far the log has grown, and takes a checkpoint when it is due.

    Everything that blocks runs on one thread of its own; the loop only waits.

    Args:
        log_bytes: Log that must have been written since the newest one.
        log_percent: The same, as a part of the newest one's bytes; the larger of the two counts.
        report: Told about the newest one, at the start and whenever it changes.
        damaged_sequence: Last batch of the log of which a replica is known to be damaged; 0 for
            none. Asked on the thread.
        space_is_short: Whether a checkpoint newer than this one would give back zones that are
            needed. Asked on the thread.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        taker: checkpoints.Checkpoints,
        *,
        log_bytes: int,
        log_percent: int,
        report: Report,
        measured: metrics.NodeMetrics,
        space_is_short: Callable[[media_records.CheckpointRecord | None], bool] = lambda newest: (
            False
        ),
        damaged_sequence: Callable[[], int] = lambda: 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._taker = taker
        self._log_bytes = log_bytes
        self._log_percent = log_percent
        self._report = report
        self._measured = measured
        self._space_is_short = space_is_short
        self._damaged_sequence = damaged_sequence
        self._now = now
        self._thread = worker_threads.WorkerThreads(1, "checkpoint")
        self._failure_streak = 0
        self._full_was_said = False
        self._seen_sequence = -1
        self._distrust_streak = 0
        self._next_look_at_copies = 0.0
        self._seen_weakened: tuple[int, tuple[int, ...]] | None = None
        """As of which nothing in the log was on too few devices."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; one under way then ends early and is released."""
        loop = asyncio.get_running_loop()
        retry_at = 0.0
        await self._thread.run(self._begin)
        while not stop.is_set():
            if loop.time() >= retry_at or await self._thread.run(self._may_make_room):
                wait = await self._thread.run(self.step)
                retry_at = loop.time() + wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)

    def _may_make_room(self) -> bool:
        """Whether one that was put off for want of room is wanted for the sake of room by now."""
        return self._full_was_said and self._space_is_short(self._taker.newest())

    def close(self) -> None:
        """End the thread, once ``run`` has ended. Blocking."""
        self._thread.close()

    def step(self) -> float:
        """Take a checkpoint if one is due. Returns seconds to wait before the next look."""
        try:
            applied = self._taker.applied_sequence()
            newest = self._taker.newest()
            copies_lost = self._copies_are_lost(newest)
            replicas_lost = self._replicas_are_lost(applied) or self._log_is_damaged(newest)
            space_is_short = self._space_is_short(newest)
            departing = self._taker.keeps_devices_from_leaving() and self._taker.can_take()
            is_pressing = copies_lost or replicas_lost or space_is_short or departing
            if applied == self._seen_sequence and not is_pressing:
                return 0.0  # An idle node does not ask its devices for every zone.
            since_bytes = self._taker.log_bytes_since_newest()
            self._measured.log_since_checkpoint_bytes.set(since_bytes)
            if is_due(
                since_bytes,
                newest,
                log_bytes=self._log_bytes,
                log_percent=self._log_percent,
                copies_lost=copies_lost,
                replicas_lost=replicas_lost,
                space_is_short=space_is_short,
                departing=departing,
            ):
                record = self._taker.take(space_is_short=space_is_short)
                if record is not None:
                    _log.info(
                        "checkpoint complete",
                        extra={
                            "checkpoint": record.checkpoint_id,
                            "sequence": record.sequence,
                            "image_bytes": record.image_bytes,
                            "entries": record.entries_count,
                        },
                    )
                    self._show(record)
        except checkpoint_writer.StoppedError:
            return 0.0
        except errors.CouchestorError as exc:
            return self._put_off(exc)
        self._seen_sequence = applied
        self._failure_streak, self._full_was_said = 0, False
        return 0.0

    def _copies_are_lost(self, newest: media_records.CheckpointRecord | None) -> bool:
        """Whether copies of the newest one are missing or damaged and can be made again.

        Reads back what this process has not read yet. What does not verify is looked at again, and
        replaced, less and less often: it may be the devices.
        """
        if newest is None:
            return False
        if self._taker.is_newest_trusted():
            self._distrust_streak = 0
            return False
        if self._now() < self._next_look_at_copies:
            return False
        if self._taker.verify_newest():
            return False
        self._next_look_at_copies = self._now() + _backoff_seconds(self._distrust_streak)
        self._distrust_streak += 1
        _log.warning("checkpoint %d is not whole on every device", newest.checkpoint_id)
        return self._taker.can_take()

    def _replicas_are_lost(self, applied: int) -> bool:
        """Whether batches behind the newest one lack a replica and an image can make up for it.

        The payloads of such a segment move (``destage``); its mutations are what an image holds.
        Once per loss: what the image holds does not count any more, and the writer of the segment
        has left it, or does at its next commit.
        """
        weakened = self._taker.weakened_segments()
        # Devices are asked for their zones once, not at each look.
        if not weakened or self._seen_weakened == (applied, weakened):
            return False
        if not self._taker.can_take():
            return False
        if not self._taker.weakened_log_bytes():
            self._seen_weakened = (applied, weakened)
            return False
        return True

    def _log_is_damaged(self, newest: media_records.CheckpointRecord | None) -> bool:
        """Whether a batch behind the newest one is damaged on a replica: an image makes up for it,
        as above."""
        damaged = self._damaged_sequence()
        return damaged > (newest.sequence if newest else 0) and self._taker.can_take()

    def _begin(self) -> None:
        try:
            self._taker.release_leftovers()
            self._show(self._taker.newest())
        except checkpoint_writer.StoppedError:
            return
        except errors.CouchestorError as exc:
            _log.warning("unfinished checkpoints are released later: %s", exc)

    def _put_off(self, exc: errors.CouchestorError) -> float:
        wait = _backoff_seconds(self._failure_streak)
        self._failure_streak += 1
        if isinstance(exc, errors.StoreFullError):
            if not self._full_was_said:
                _log.warning("no checkpoint until there is room; a replay takes longer: %s", exc)
            self._full_was_said = True
        else:
            _log.warning("no checkpoint now, next try in %g s: %s", wait, exc)
        return wait

    def _show(self, newest: media_records.CheckpointRecord | None) -> None:
        if newest is None:
            return
        taken_seconds = newest.taken_ns / units.NS_PER_SECOND
        self._measured.checkpoint_sequence.set(newest.sequence)
        self._measured.checkpoint_bytes.set(newest.image_bytes)
        self._measured.checkpoint_time.set(taken_seconds)
        taken_at = datetime.datetime.fromtimestamp(taken_seconds, datetime.UTC)
        self._report(
            {
                "checkpoint": {
                    "sequence": newest.sequence,
                    "bytes": newest.image_bytes,
                    "entries": newest.entries_count,
                    "taken_at": taken_at.isoformat(timespec="seconds"),
                }
            }
        )


def _backoff_seconds(streak: int) -> float:
    return float(min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(streak, 16)))
