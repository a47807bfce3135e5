"""How much volumes are used, from whoever measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from couchestor_operator.control import heat

PV_PREFIX: Final = "pvc-"
"""What Kubernetes' provisioner puts before a volume's id in the name of its PersistentVolume."""


def volume_key(name: str) -> str:
    """The name that a volume's heat is filed under.

    Exporters name PersistentVolumes (``pvc-<id>``), the storage control plane names ids; both are
    the same volume.
    """
    return name.removeprefix(PV_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatReading:
    """The heat of every volume that the source knows of, as of one moment."""

    measured_at_seconds: float
    """Since the epoch, by the operator's clock: the end of the window."""
    window_seconds: float
    scores: Mapping[str, heat.HeatScore | heat.Unknown]
    """By ``volume_key``."""
    unnamed_series_count: int = 0
    """Series that named no volume, and so count for none."""

    def of(self, volume: str) -> heat.HeatScore | heat.Unknown:
        """The heat of the volume of that name; one that was not measured is Unknown."""
        return self.scores.get(volume_key(volume), heat.Unknown.NO_DATA)


class MetricsProvider(Protocol):
    """Measures all volumes at once."""

    async def measure(self, window_seconds: float) -> HeatReading:
        """The heat of all volumes, averaged over the window that ends now.

        A reading may be shared by callers and be a little older than the call, by a bound that the
        adapter documents. One that cannot be had is an error, never an older reading: whoever gets
        none moves nothing. Cancelling a call harms no other.

        Args:
            window_seconds: Above 0.

        Raises:
            PrometheusConnectionError: the source cannot be reached, is too busy or too slow.
            PrometheusQueryError: it refuses the question or the credentials.
            PrometheusParseError: its answer is not one.
        """
        ...
