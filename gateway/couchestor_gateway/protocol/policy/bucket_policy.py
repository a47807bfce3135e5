"""A bucket's policy: what it says of a request, and whether it opens the bucket to the public.

Policies of users are read and asked as well: they name no principal, and speak of any bucket.

    an explicit Deny       denies, whatever else allows it
    else an Allow          allows
    else                   nothing: access control lists decide

Source: AWS IAM User Guide, "Policy evaluation logic"; Amazon S3 User Guide, "Bucket policies".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from couchestor_domain import access
from couchestor_gateway.protocol.policy import (
    evaluation,
    policy_json,
    principals,
    publicity,
    statements,
)

_VERSIONS: Final = {"2012-10-17": True, "2008-10-17": False}
"""Each version, and whether it has variables."""
_MEMBERS: Final = frozenset({"Version", "Id", "Statement"})


class Decision(enum.Enum):
    """What a policy says of a request."""

    ALLOWED = "allowed"
    DENIED = "denied"
    DELEGATED = "delegated"
    """Allowed to the caller's account, whose policies say to which of its users."""
    OPEN = "open"
    """Nothing."""


class BucketPolicy:
    """A policy that has been read. Immutable."""

    __slots__ = ("_allowing", "_denying", "is_public", "statements")

    def __init__(self, read: Sequence[statements.Statement]) -> None:
        self.statements = tuple(read)
        self._denying = _by_action(each for each in read if not each.allows)
        self._allowing = _by_action(each for each in read if each.allows)
        self.is_public: bool = any(publicity.is_public(each) for each in read)
        """Whether it allows something to everybody, or to whoever fits no fixed value."""

    def decide(
        self,
        caller: access.Caller,
        action: str,
        resource: str,
        facts: evaluation.Facts,
        *,
        member: str = "",
    ) -> Decision:
        """What it says.

        Args:
            action: As ``actions.KINDS`` names it.
            resource: ``bucket`` or ``bucket/key``.
            member: Which of the caller's users asks; empty: the caller.
        """
        question = evaluation.Evaluation(action, facts)
        found = Decision.OPEN
        try:
            for each in self._denying.get(action, ()):
                if each.speaks_of(caller, resource, question, member):
                    return Decision.DENIED
            for each in self._allowing.get(action, ()):
                if each.speaks_of(caller, resource, question, member):
                    if not member or each.principals.include(None, member):
                        return Decision.ALLOWED
                    found = Decision.DELEGATED
        except evaluation.UndecidedError:
            return Decision.DENIED
        return found


def parse(
    document: bytes, *, bucket: str | None, is_user: principals.IsUser | None = None
) -> BucketPolicy:
    """The policy in a document.

    Args:
        bucket: Whose it is: what it speaks of must be in it. None: a user's.
        is_user: As for ``principals.parse``.

    Raises:
        S3Error: MalformedPolicy, with S3's sentence for the first fault.
    """
    members = policy_json.parse(document)
    for name in members:
        if name not in _MEMBERS:
            raise policy_json.malformed(f"Unknown field {name[:64]}")
    version = members.get("Version", "2008-10-17")
    if not isinstance(version, str) or version not in _VERSIONS:
        raise policy_json.malformed("The policy must contain a valid version string")
    if not isinstance(members.get("Id", ""), str):
        raise policy_json.malformed("Invalid policy syntax.")
    if "Statement" not in members:
        raise policy_json.malformed("Missing required field Statement")
    listed = members["Statement"]
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, list):
        raise policy_json.malformed("Invalid policy syntax.")
    if not listed:
        raise policy_json.malformed("Could not parse the policy: Statement is empty!")
    setting = statements.Setting(bucket=bucket, variables=_VERSIONS[version], is_user=is_user)
    return BucketPolicy([statements.parse(each, setting) for each in listed])


def _by_action(
    found: Iterable[statements.Statement],
) -> Mapping[str, Sequence[statements.Statement]]:
    table: dict[str, list[statements.Statement]] = {}
    for each in found:
        for action in each.actions:
            table.setdefault(action, []).append(each)
    return MappingProxyType(table)
