"""Policies as dictionaries, and questions to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from couchestor_domain import access
from couchestor_gateway.protocol.policy import bucket_policy, condition_keys
from couchestor_gateway.protocol.policy.bucket_policy import Decision

BUCKET = "books"
ARN = f"arn:aws:s3:::{BUCKET}"
USERS = frozenset({"ada", "bob", "eve"})


class KnownFacts:
    """A request about which everything is said beforehand."""

    def __init__(self, facts: Mapping[str, str | Sequence[str]]) -> None:
        self._values = {
            condition_keys.normal(key): (value,) if isinstance(value, str) else tuple(value)
            for key, value in facts.items()
        }

    def values(self, key: str) -> Sequence[str] | None:
        return self._values.get(key)


def statement(**members: Any) -> dict[str, Any]:
    """A statement that allows everybody to read everything, but for what is given.

    None leaves a member out.
    """
    usual = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"{ARN}/*",
    }
    return {name: value for name, value in {**usual, **members}.items() if value is not None}


def document(*statements: Mapping[str, Any], **members: Any) -> bytes:
    """A policy of these statements."""
    whole = {"Version": "2012-10-17", "Statement": list(statements), **members}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def policy(*statements: Mapping[str, Any], **members: Any) -> bucket_policy.BucketPolicy:
    """The same, read."""
    return bucket_policy.parse(
        document(*statements, **members), bucket=BUCKET, is_user=USERS.__contains__
    )


def ask(
    asked: bucket_policy.BucketPolicy,
    caller: access.Caller = "bob",
    *,
    action: str = "s3:GetObject",
    key: str | None = "k",
    facts: Mapping[str, str | Sequence[str]] = MappingProxyType({}),
    **more: str,
) -> Decision:
    """What it says of a request.

    Args:
        more: Further facts; a ``__`` in a name stands for a colon.
    """
    resource = BUCKET if key is None else f"{BUCKET}/{key}"
    known = {**facts, **{name.replace("__", ":"): value for name, value in more.items()}}
    return asked.decide(caller, action, resource, KnownFacts(known))
