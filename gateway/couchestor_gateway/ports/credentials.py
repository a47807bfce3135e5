"""Who may sign requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An access key, its secret and the canonical user id it acts for."""

    access_key: str
    secret_key: str
    owner: str
    display_name: str


class CredentialStore(Protocol):
    """Looks credentials up; called on the event loop for each request, so it must not block."""

    def find(self, access_key: str) -> Credential | None:
        """The credential, or None for an unknown access key."""
        ...
