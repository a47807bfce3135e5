"""When a device is suspected: for being slow again and again, or for errors that pile up.

Pure: windows of figures in, suspicions out. One bad window says nothing: garbage collection, a
checkpoint, a neighbour. So windows in which a device was slow count up and those in which it was
not count down, and only at ``WINDOWS_TO_SUSPECT`` it is suspected.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from couchestor_daemon.ports import drive_figures
from couchestor_daemon.services import drive_comparison
from couchestor_domain import ids

WINDOWS_TO_SUSPECT: Final = 5
ERROR_WINDOWS: Final = 60
"""Errors are added up over so many."""
ERRORS_MIN: Final = 16
"""Distinct wrong places and failed reads together: one bad track is not a bad drive."""
CLEARED_SECONDS: Final = 600.0
"""How long a device that passed its test is not suspected again, unless it is twice as slow or has
twice as many errors. Each further time it is for twice as long."""
CLEARED_SECONDS_MAX: Final = 4 * 3600.0
WORSE_RATIO: Final = 2.0


class Suspicion(NamedTuple):
    """Why a device is to be tested."""

    reason: str
    """For people, with the numbers it goes by."""
    severity: float
    """Slowness as a ratio, or the number of errors."""
    is_for_errors: bool = False
    is_relapse: bool = False
    """It has passed its tests before, and its errors came back."""


class _Cleared(NamedTuple):
    until_seconds: float
    severity: float
    is_for_errors: bool
    for_seconds: float


class DriveSuspicion:
    """What the last windows said of each device.

    Args:
        limits: See ``drive_comparison.Limits``.
    """

    def __init__(self, limits: drive_comparison.Limits) -> None:
        self._limits = limits
        self._scores: dict[ids.DeviceId, int] = {}
        self._errors: deque[Mapping[ids.DeviceId, drive_figures.Figures]] = deque(
            maxlen=ERROR_WINDOWS
        )
        self._cleared: dict[ids.DeviceId, _Cleared] = {}
        self._cleared_of_errors: set[ids.DeviceId] = set()

    def observe(
        self,
        window: Mapping[ids.DeviceId, drive_figures.Figures],
        *,
        exempt: Collection[ids.DeviceId],
        now_seconds: float,
    ) -> dict[ids.DeviceId, Suspicion]:
        """Take in a window; the devices that become suspected by it.

        Args:
            window: Of the devices that are in service.
            exempt: Under suspicion already: neither suspected nor anybody's peers, because the node
                treats them differently by now.
        """
        window = {key: value for key, value in window.items() if key not in exempt}
        for device_id in exempt:
            self._scores.pop(device_id, None)
        comparison = drive_comparison.compare(window, self._limits)
        found = {**self._failing(window), **self._slow(comparison)}
        return {
            device_id: suspicion._replace(
                is_relapse=suspicion.is_for_errors and device_id in self._cleared_of_errors
            )
            for device_id, suspicion in found.items()
            if not self._is_cleared(device_id, suspicion, now_seconds)
        }

    def clear(self, device_id: ids.DeviceId, suspicion: Suspicion, now_seconds: float) -> None:
        """A suspected device has proved to be as good as the others."""
        before = self._cleared.get(device_id)
        for_seconds = CLEARED_SECONDS
        if before is not None and now_seconds < before.until_seconds + CLEARED_SECONDS_MAX:
            for_seconds = min(CLEARED_SECONDS_MAX, 2 * before.for_seconds)
        self._cleared[device_id] = _Cleared(
            now_seconds + for_seconds, suspicion.severity, suspicion.is_for_errors, for_seconds
        )
        if suspicion.is_for_errors:
            self._cleared_of_errors.add(device_id)
        self.forget(device_id)

    def forget(self, device_id: ids.DeviceId) -> None:
        """Begin anew with a device."""
        self._scores.pop(device_id, None)
        for index, window in enumerate(self._errors):
            if device_id in window:
                self._errors[index] = {
                    key: value for key, value in window.items() if key != device_id
                }

    def _slow(self, comparison: drive_comparison.Comparison) -> dict[ids.DeviceId, Suspicion]:
        found: dict[ids.DeviceId, Suspicion] = {}
        for device_id in comparison.not_slow:
            self._scores[device_id] = max(0, self._scores.get(device_id, 0) - 1)
        for device_id, slowness in comparison.slow.items():
            score = self._scores[device_id] = min(
                WINDOWS_TO_SUSPECT, self._scores.get(device_id, 0) + 1
            )
            if score == WINDOWS_TO_SUSPECT:
                found[device_id] = Suspicion(f"slow: {slowness}", slowness.ratio)
        return found

    def _failing(
        self, window: Mapping[ids.DeviceId, drive_figures.Figures]
    ) -> dict[ids.DeviceId, Suspicion]:
        self._errors.append(
            {
                device_id: drive_figures.NOTHING._replace(
                    failed_reads_count=figures.failed_reads_count,
                    wrong_places_count=figures.wrong_places_count,
                )
                for device_id, figures in window.items()
                if figures.failed_reads_count or figures.wrong_places_count
            }
        )
        totals = {device_id: self._total(device_id) for device_id in window}
        found: dict[ids.DeviceId, Suspicion] = {}
        for device_id, (failed, wrong) in totals.items():
            peers = statistics.median_high(
                [sum(total) for other, total in totals.items() if other != device_id] or [0]
            )
            if failed + wrong < max(ERRORS_MIN, self._limits.ratio * peers):
                continue
            found[device_id] = Suspicion(
                f"errors: {failed} reads failed and {wrong} places were not as written, "
                f"{peers} on the other devices",
                float(failed + wrong),
                is_for_errors=True,
            )
        is_general = len(found) > self._limits.slow_max or 2 * len(found) >= max(len(totals), 1)
        return {} if is_general else found

    def _total(self, device_id: ids.DeviceId) -> tuple[int, int]:
        rows = [window[device_id] for window in self._errors if device_id in window]
        return (
            sum(row.failed_reads_count for row in rows),
            sum(row.wrong_places_count for row in rows),
        )

    def _is_cleared(
        self, device_id: ids.DeviceId, suspicion: Suspicion, now_seconds: float
    ) -> bool:
        cleared = self._cleared.get(device_id)
        return (
            cleared is not None
            and now_seconds < cleared.until_seconds
            and cleared.is_for_errors == suspicion.is_for_errors
            and suspicion.severity < WORSE_RATIO * cleared.severity
        )
