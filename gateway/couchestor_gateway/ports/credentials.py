"""Who may sign requests, and who is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Admit = Callable[[], float]
"""Take one request off what a limit leaves: 0 when it is granted, else how many seconds it takes
until one may be. Shared by every worker process; never blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user in a tenant who is not its root: may do what policies say, and nothing else."""

    name: str
    """In the tenant."""
    principal: str
    """``TENANT:user/NAME``: the user's ARN without ``arn:aws:iam::``."""
    policies: Sequence[str] = ()
    """The documents that are attached to the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An access key, its secret and the canonical user id it acts for."""

    access_key: str
    secret_key: str = field(repr=False)
    owner: str
    display_name: str
    member: Member | None = None
    """Who of the owner's users it is; None: the owner."""
    admit: Admit | None = None
    """What limits the rate of its requests, if anything does."""


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

    def is_principal(self, name: str) -> bool:
        """Whether a policy can name somebody so: by the id of a user, or as a ``Member``."""
        ...
