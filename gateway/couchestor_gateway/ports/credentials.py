"""Who may sign requests, and who is known."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the node, with or without keys."""

    user_id: str
    """The canonical id: what owners of buckets and objects and grantees are named by."""
    display_name: str
    email: str = ""


class CredentialStore(Protocol):
    """Looks keys and users up; called on the event loop for each request, so it must not block."""

    def find(self, access_key: str) -> Credential | None:
        """The credential, or None for an unknown access key."""
        ...

    def user(self, user_id: str) -> User | None:
        """The user of a canonical id, or None for an unknown one."""
        ...

    def user_by_email(self, email: str) -> User | None:
        """The user of an e-mail address, or None for an unknown one."""
        ...
