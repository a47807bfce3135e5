"""How much a volume was used lately: the time-weighted mean of its samples."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

IOPS_MAX: Final = 1e15
"""More is a fault of the source; far more would overflow a sum."""


class Sample(NamedTuple):
    """One point of a series."""

    at_seconds: float
    """Since the epoch."""
    iops: float


class Unknown(enum.Enum):
    """Why nothing can be said of a volume's heat. None of these ever moves a volume."""

    NO_DATA = "NoData"
    STALE = "Stale"
    TOO_FEW = "TooFewSamples"
    NOT_A_NUMBER = "NotANumber"
    FROM_THE_FUTURE = "FromTheFuture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How good samples must be before anything is concluded from them."""

    age_seconds_max: float = 300.0
    """The newest sample may be this old."""
    skew_seconds_max: float = 60.0
    """The newest sample may be this far in the future: clocks differ."""
    gap_seconds_max: float = 300.0
    """A sample speaks for this long at most, when none follows it."""
    covered_ratio_min: float = 0.5
    """Part of the window that samples must speak for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatScore:
    """A volume's mean IOPS over a window, and how well it is known."""

    iops: float
    covered_ratio: float
    newest_age_seconds: float


def score(
    samples: Iterable[Sample], *, now_seconds: float, window_seconds: float, trust: Trust
) -> HeatScore | Unknown:
    """Mean of the samples in the window before now, each weighted by how long it was the newest.

    A sample speaks until the next one, or for ``gap_seconds_max``: what was not measured does not
    count, neither as busy nor as idle. Samples of one moment count as their largest: a series that
    two sources report must not make a busy volume look idle.

    Args:
        samples: In any order; what lies before the window speaks for its beginning.
        window_seconds: Above 0.
    """
    assert window_seconds > 0, window_seconds
    latest: dict[float, float] = {}
    for sample in samples:
        if not (math.isfinite(sample.iops) and math.isfinite(sample.at_seconds)):
            return Unknown.NOT_A_NUMBER
        if not 0 <= sample.iops <= IOPS_MAX:
            return Unknown.NOT_A_NUMBER
        latest[sample.at_seconds] = max(sample.iops, latest.get(sample.at_seconds, 0.0))
    if not latest:
        return Unknown.NO_DATA
    moments = sorted(latest)
    newest_age_seconds = now_seconds - moments[-1]
    if newest_age_seconds < -trust.skew_seconds_max:
        return Unknown.FROM_THE_FUTURE
    if newest_age_seconds > trust.age_seconds_max:
        return Unknown.STALE
    # Within the tolerated skew the newest sample is taken as of now.
    end_seconds = max(now_seconds, moments[-1])
    start_seconds = end_seconds - window_seconds
    spoken_seconds = 0.0
    terms: list[float] = []
    for moment, until in zip(moments, [*moments[1:], end_seconds], strict=True):
        since = max(moment, start_seconds)
        length_seconds = min(until, moment + trust.gap_seconds_max) - since
        if length_seconds > 0:
            spoken_seconds += length_seconds
            terms.append(latest[moment] * length_seconds)
    covered_ratio = min(1.0, spoken_seconds / window_seconds)
    if spoken_seconds <= 0 or covered_ratio < trust.covered_ratio_min:
        return Unknown.TOO_FEW
    return HeatScore(
        iops=math.fsum(terms) / spoken_seconds,
        covered_ratio=covered_ratio,
        newest_age_seconds=max(0.0, newest_age_seconds),
    )
