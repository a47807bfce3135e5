"""Where Mayastor's REST API is, and how it is spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from couchestor_domain import errors
from couchestor_operator.adapters import http_access

ROOT: Final = "/v0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(http_access.Access):
    """How to reach one Mayastor; its URL ends with the path that ``/v0`` is under, if any."""

    SERVICE: ClassVar[str] = "Mayastor"
    EXAMPLE: ClassVar[str] = "http://mayastor-api-rest.mayastor:8081"
    UNAVAILABLE: ClassVar[type[errors.ControlPlaneError]] = errors.MayastorApiError

    @property
    def root_url(self) -> str:
        """What every call begins with."""
        return self.url.rstrip("/") + ROOT
