"""What becomes of a suspected device: the outcomes of its tests in, its standing out.

Pure. Each test compares the device with a trusted one at the same moment.

    standing     test passed                         test failed
    SUSPECTED    PASSES_TO_CLEAR in a row: cleared   FAILS_TO_HOLD in a row: HELD
    HELD         PASSES_TO_EMPLOY in a row: cleared  FAILS_TO_LEAVE in a row: OUT

A device whose errors came back after it had passed is held although it passes again, and employed
after ``PASSES_AFTER_RELAPSE``: what it loses is not what a test happens to write.

A device that would do more harm by its absence is not held, or not taken out: the caller says so,
and it stays what it is.
"""

from __future__ import annotations

import enum
from typing import Final

from couchestor_daemon.ports import drive_verdicts
from couchestor_daemon.services import drive_suspicion

PASSES_TO_CLEAR: Final = 2
PASSES_TO_EMPLOY: Final = 4
PASSES_AFTER_RELAPSE: Final = 60
FAILS_TO_HOLD: Final = 2
FAILS_TO_LEAVE: Final = 6
"""Those that led to its being held among them."""


class Step(enum.Enum):
    """What is to be done after a test."""

    NOTHING = "nothing"
    CLEAR = "clear"
    HOLD = "hold"
    LEAVE = "leave"


class DriveTrial:
    """One device, from when it is suspected until it is cleared or leaves."""

    def __init__(
        self,
        suspicion: drive_suspicion.Suspicion,
        standing: drive_verdicts.Standing = drive_verdicts.Standing.SUSPECTED,
    ) -> None:
        self.suspicion = suspicion
        self.standing = standing
        self.last_test = ""
        """What the last one found, for people."""
        self.stays_because = ""
        """Why nothing worse is done to it than is."""
        self._passed_count = 0
        self._failed_count = FAILS_TO_HOLD if standing is drive_verdicts.Standing.HELD else 0

    def tested(self, *, passed: bool, text: str) -> Step:
        """Take in a test; what is to be done now. ``hold`` tells that it was."""
        self.last_test = text
        if passed:
            self._failed_count = (
                FAILS_TO_HOLD if self.standing is drive_verdicts.Standing.HELD else 0
            )
            self._passed_count += 1
            return self._after_passes()
        self._passed_count = 0
        self._failed_count += 1
        if (
            self.standing is drive_verdicts.Standing.SUSPECTED
            and self._failed_count >= FAILS_TO_HOLD
        ):
            return Step.HOLD
        if self.standing is drive_verdicts.Standing.HELD and self._failed_count >= FAILS_TO_LEAVE:
            return Step.LEAVE
        return Step.NOTHING

    def _after_passes(self) -> Step:
        relapsed = self.suspicion.is_relapse
        if self.standing is drive_verdicts.Standing.HELD:
            needed = PASSES_AFTER_RELAPSE if relapsed else PASSES_TO_EMPLOY
            return Step.CLEAR if self._passed_count >= needed else Step.NOTHING
        if self._passed_count < PASSES_TO_CLEAR:
            return Step.NOTHING
        return Step.HOLD if relapsed else Step.CLEAR

    def hold(self) -> None:
        """It is given no new zones from now on."""
        self.standing = drive_verdicts.Standing.HELD
        self.stays_because = ""

    def stay(self, because: str) -> None:
        """It is left as it is although its tests failed."""
        self.stays_because = because

    def __str__(self) -> str:
        parts = [self.suspicion.reason, self.last_test]
        if self.standing is drive_verdicts.Standing.HELD:
            parts.append("it is given nothing new")
        parts.append(self.stays_because)
        return "; ".join(part for part in parts if part)
