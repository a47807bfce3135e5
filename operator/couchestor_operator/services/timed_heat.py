"""Heat, each query for which is counted and measured."""

from __future__ import annotations

from couchestor_domain import errors
from couchestor_operator.ports import metrics_provider, monotonic_clock, operator_figures


class TimedHeat:
    """A ``MetricsProvider``; put it behind a cache, so that it sees what is really asked."""

    def __init__(
        self,
        inner: metrics_provider.MetricsProvider,
        clock: monotonic_clock.MonotonicClock,
        figures: operator_figures.QueryFigures,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._figures = figures

    async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
        """As the inner one."""
        started_seconds = self._clock.monotonic_seconds()
        outcome = "cancelled"
        try:
            reading = await self._inner.measure(window_seconds)
            outcome = "ok"
            return reading
        except errors.ControlPlaneError as exc:
            outcome = type(exc).__name__.removesuffix("Error")
            raise
        finally:
            seconds = self._clock.monotonic_seconds() - started_seconds
            self._figures.queried(outcome, seconds=seconds)
