"""Devices are watched, suspected, tested, held and taken out: the work of one process of the node.

What is decided where: ``drive_comparison`` and ``drive_suspicion`` from what commands took,
``drive_probe`` and ``drive_trial`` by tests, ``drive_absence`` what the node can do without. See
docs/adr/0012.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from couchestor_daemon.ports import drive_figures, drive_verdicts
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    departures,
    drive_absence,
    drive_probe,
    drive_suspicion,
    drive_trial,
)
from couchestor_domain import errors, event_publisher, events, geometry, ids

HELD_EVERY: Final = 3
"""Windows between two tests of a device that is held."""
SUBJECT: Final = "trust in device "
"""What the subject of a HealthChanged event begins with; the id follows."""

logger = logging.getLogger(__name__)

Window = Mapping[ids.DeviceId, drive_figures.Figures]
_HELD: Final = drive_verdicts.Standing.HELD


class Tester(Protocol):
    """What tests a device: ``drive_probe.DriveProbe``."""

    async def test(self, suspect: ids.DeviceId, peer: ids.DeviceId) -> drive_probe.Outcome | None:
        """See there."""
        ...


class DriveWatch:
    """``BackgroundWork``: one window a step.

    Args:
        take_window: What each device did since the last call; blocking.
        devices: Ids of the devices that this process has opened, in service or not.
        probe: Tests a device beside another.
        suspicion: Decides whom to test.
        shape: Coding of new stripes while all devices are there.
        journal_replicas_count: Devices that a batch of the log needs.
        on_verdicts: Tells every process, and people, of all devices that are not trusted; called
            when something about them has changed.
        on_window: Shows people what was measured.
        known: Verdicts of an earlier process of this run: it is gone on with them.
        run_blocking: Runs what blocks.
        now_seconds: Monotonic.
    """

    name: Final = "watch"

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        take_window: Callable[[], Window],
        devices: Callable[[], Iterable[ids.DeviceId]],
        probe: Tester,
        suspicion: drive_suspicion.DriveSuspicion,
        shape: geometry.StripeGeometry,
        journal_replicas_count: int,
        window_seconds: float,
        publisher: event_publisher.EventPublisher,
        on_verdicts: Callable[[Sequence[drive_verdicts.Verdict]], None],
        on_window: Callable[[Window], None] = lambda window: None,
        known: Sequence[drive_verdicts.Verdict] = (),
        run_blocking: Callable[..., Awaitable[Any]],
        now_seconds: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._index = index
        self._media = media
        self._take_window = take_window
        self._devices = devices
        self._probe = probe
        self._suspicion = suspicion
        self._shape = shape
        self._devices_min = max(shape.parity_shards + 1, journal_replicas_count)
        self._window_seconds = window_seconds
        self._publisher = publisher
        self._on_verdicts = on_verdicts
        self._on_window = on_window
        self._run_blocking = run_blocking
        self._now_seconds = now_seconds
        self._rng = rng
        self._trials = {
            verdict.device_id: drive_trial.DriveTrial(
                drive_suspicion.Suspicion(verdict.text, 0.0, not verdict.is_slow),
                verdict.standing,
            )
            for verdict in known
        }
        self._told: list[drive_verdicts.Verdict] | None = None
        self._steps_count = 0

    async def step(self) -> float:
        """Look at a window, then test who is to be tested.

        Raises:
            CouchestorError: a test could not be carried out; the next step goes on.
        """
        began = self._now_seconds()
        self._steps_count += 1
        in_service = {
            device_id
            for device_id in self._devices()
            if not departures.is_lost(self._media, device_id)
        }
        for device_id in self._trials.keys() - in_service:
            del self._trials[device_id]
            self._suspicion.forget(device_id)
        window = await self._run_blocking(self._take_window)
        window = {key: value for key, value in window.items() if key in in_service}
        self._on_window(window)
        found = self._suspicion.observe(
            window, exempt=self._trials.keys(), now_seconds=self._now_seconds()
        )
        for device_id, suspicion in found.items():
            self._trials[device_id] = drive_trial.DriveTrial(suspicion)
            self._tell_people(device_id, healthy=False)
        self._tell()
        try:
            for device_id in list(self._trials):
                if self._is_due(device_id):
                    await self._try(device_id, in_service)
        finally:
            self._tell()
        return max(0.0, began + self._window_seconds - self._now_seconds())

    def _is_due(self, device_id: ids.DeviceId) -> bool:
        return self._trials[device_id].standing is not _HELD or self._steps_count % HELD_EVERY == 0

    async def _try(self, device_id: ids.DeviceId, in_service: Iterable[ids.DeviceId]) -> None:
        trial = self._trials[device_id]
        trusted = sorted(
            identity.device_id
            for identity in self._media.healthy_devices()
            if identity.device_id not in self._trials
        )
        if not trusted:
            return
        try:
            outcome = await self._probe.test(device_id, self._rng.choice(trusted))
        except errors.DeviceError as exc:
            # Whoever it was has left for it, or the next test finds out.
            logger.info("a test of device %s came to nothing: %s", device_id, exc)
            return
        if outcome is None:
            return
        match trial.tested(passed=outcome.passed, text=outcome.text):
            case drive_trial.Step.CLEAR:
                self._suspicion.clear(device_id, trial.suspicion, self._now_seconds())
                del self._trials[device_id]
                self._tell_people(device_id, healthy=True, reason=outcome.text)
            case drive_trial.Step.HOLD:
                self._hold(device_id, trial)
            case drive_trial.Step.LEAVE:
                await self._take_out(device_id, trial)

    def _hold(self, device_id: ids.DeviceId, trial: drive_trial.DriveTrial) -> None:
        # Errors are found and repaired; narrower stripes would be the greater harm.
        devices_min = (
            self._shape.shards_count if trial.suspicion.is_for_errors else self._devices_min
        )
        because = drive_absence.why_not_hold(self._media, device_id, devices_min=devices_min)
        if because:
            trial.stay(because)
            return
        trial.hold()
        self._tell_people(device_id, healthy=False)

    async def _take_out(self, device_id: ids.DeviceId, trial: drive_trial.DriveTrial) -> None:
        because = await self._run_blocking(
            lambda: drive_absence.why_not_leave(
                self._index, self._media, device_id, shape=self._shape
            )
        )
        if because:
            trial.stay(because)
            return
        del self._trials[device_id]
        self._suspicion.forget(device_id)
        self._media.report_failure(
            device_id,
            errors.DeviceUnfitError(
                f"it failed {drive_trial.FAILS_TO_LEAVE} tests in a row ({trial}): look at the "
                "drive, then `couchestor device attach` brings it back or `couchestor device "
                "replace` puts another in its place",
                device=device_id,
            ),
        )

    def _tell_people(self, device_id: ids.DeviceId, *, healthy: bool, reason: str = "") -> None:
        self._publisher.publish(
            events.HealthChanged(
                subject=f"{SUBJECT}{device_id}",
                healthy=healthy,
                reason=reason or str(self._trials[device_id]),
            )
        )

    def _tell(self) -> None:
        """Nothing, unless something has changed."""
        verdicts = [
            drive_verdicts.Verdict(
                device_id, trial.standing, not trial.suspicion.is_for_errors, str(trial)
            )
            for device_id, trial in sorted(self._trials.items())
        ]
        if verdicts != self._told:
            self._told = verdicts
            self._on_verdicts(verdicts)
