"""Who may do what with a bucket or an object: ACLs, policies, and what overrules them.

A user is named by the canonical id, a text. Whoever sends a request is a ``Caller``: such an id, or
None for one that nobody signed. The rules themselves are the gateway's (``protocol.permissions``,
``protocol.policy``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

Caller = str | None
"""The canonical id of whoever signed a request; None: nobody did."""

GRANTS_MAX: Final = 100
USER_ID_CHARACTERS_MAX: Final = 96
"""Bounds, with ``GRANTS_MAX``, what an ACL adds to a record."""


class Permission(enum.Enum):
    """What a grant allows; of a bucket, READ lists it and WRITE creates and deletes objects."""

    READ = "READ"
    WRITE = "WRITE"
    READ_ACP = "READ_ACP"
    WRITE_ACP = "WRITE_ACP"
    FULL_CONTROL = "FULL_CONTROL"


class Group(enum.Enum):
    """Callers that are granted something together."""

    ALL_USERS = "AllUsers"
    """Everybody, signed or not."""
    AUTHENTICATED_USERS = "AuthenticatedUsers"
    """Whoever signed with a key of this node."""


class Grant(NamedTuple):
    """A permission of one user or of one group."""

    permission: Permission
    user_id: str = ""
    """Empty for a group."""
    group: Group | None = None


Acl = tuple[Grant, ...]
"""At most ``GRANTS_MAX`` grants. In a record, None stands for the owner's FULL_CONTROL alone."""


class Ownership(enum.Enum):
    """Whose objects are that others write into a bucket."""

    UNSET = ""
    """As ``OBJECT_WRITER``, and answered as not configured."""
    OBJECT_WRITER = "ObjectWriter"
    BUCKET_OWNER_PREFERRED = "BucketOwnerPreferred"
    """The bucket's owner's where the writer grants the owner full control, else the writer's."""
    BUCKET_OWNER_ENFORCED = "BucketOwnerEnforced"
    """The bucket's owner's; every ACL, also of what was written before, is without effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAccessBlock:
    """What of a bucket is kept from the public, whatever its ACL and its policy say."""

    block_public_acls: bool = False
    """Refuse ACLs that grant something to a group."""
    ignore_public_acls: bool = False
    """Let grants to groups be without effect."""
    block_public_policy: bool = False
    """Refuse policies that let the public in."""
    restrict_public_buckets: bool = False
    """Keep everybody but the owner out of a bucket whose policy lets the public in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAccess:
    """Everything about a bucket that says who may use it, beside its owner."""

    acl: Acl | None = None
    ownership: Ownership = Ownership.UNSET
    public_access: PublicAccessBlock | None = None
    """None: not configured, which blocks nothing."""
    policy: str | None = None
    """The document as it was put, which the gateway has judged; None: there is none."""

    @property
    def has_acls(self) -> bool:
        """Whether ACLs have an effect."""
        return self.ownership is not Ownership.BUCKET_OWNER_ENFORCED

    @property
    def heeds_groups(self) -> bool:
        """Whether grants to groups have an effect."""
        return self.public_access is None or not self.public_access.ignore_public_acls


PRIVATE: Final = BucketAccess()
"""Of a bucket that nobody has opened."""


def grants_public_access(acl: Acl | None) -> bool:
    """Whether it grants anything to a group."""
    return acl is not None and any(grant.group is not None for grant in acl)


def normal(acl: Acl, *, owner: str) -> Acl | None:
    """An ACL as records hold it: no grant twice, grants to groups first.

    Args:
        owner: Of what it is an ACL of.
    """
    unique = tuple(dict.fromkeys(acl))
    if unique == (Grant(Permission.FULL_CONTROL, owner),):
        return None
    return tuple(sorted(unique, key=lambda grant: grant.group is None))


def grants_of(acl: Acl | None, *, owner: str) -> Acl:
    """The grants that an ACL of a record stands for."""
    return (Grant(Permission.FULL_CONTROL, owner),) if acl is None else acl
