"""Where Prometheus is, and how it is spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from couchestor_domain import errors
from couchestor_operator.adapters import http_access

RANGE_PATH: Final = "/api/v1/query_range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(http_access.Access):
    """How to reach one Prometheus; its URL ends with the path that the API is under, if any."""

    SERVICE: ClassVar[str] = "Prometheus"
    EXAMPLE: ClassVar[str] = "http://prometheus.monitoring:9090"
    UNAVAILABLE: ClassVar[type[errors.ControlPlaneError]] = errors.PrometheusConnectionError

    @property
    def range_url(self) -> str:
        """Where range queries go."""
        return self.url.rstrip("/") + RANGE_PATH
