"""Heat as a test sets it."""

from __future__ import annotations

from couchestor_domain import errors
from couchestor_operator.control import heat
from couchestor_operator.ports import metrics_provider


class MemoryHeat:
    """Implements ``ports.metrics_provider.MetricsProvider``; a volume not set has no data."""

    def __init__(self) -> None:
        self.scores: dict[str, heat.HeatScore | heat.Unknown] = {}
        self.fault: errors.ControlPlaneError | None = None
        self.windows_seconds: list[float] = []

    def put(self, volume_name: str, iops: float | heat.Unknown) -> None:
        """Have a volume be so much used."""
        key = metrics_provider.volume_key(volume_name)
        self.scores[key] = (
            iops
            if isinstance(iops, heat.Unknown)
            else heat.HeatScore(iops=iops, covered_ratio=1.0, newest_age_seconds=1.0)
        )

    async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
        """What was put."""
        self.windows_seconds.append(window_seconds)
        if self.fault is not None:
            raise self.fault
        return metrics_provider.HeatReading(
            measured_at_seconds=0.0, window_seconds=window_seconds, scores=dict(self.scores)
        )
