"""Policies of buckets, ready to be asked and kept while there is room: none is read per request."""

from __future__ import annotations

import collections
import logging
from typing import Final

from couchestor_domain import objects, units
from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import s3_error
from couchestor_gateway.protocol.policy import bucket_policy, evaluation

LOG: Final = logging.getLogger("couchestor.gateway")
KEPT_CHARACTERS_MAX: Final = units.MIB
"""Of documents. What is made of one takes sixty times its length at worst."""

_CLOSED: Final = (
    b'{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}}'
)


class ReadPolicies:
    """The policies that were asked last.

    Args:
        characters_max: Most that their documents may have together; the last one stays anyway.
    """

    def __init__(self, characters_max: int = KEPT_CHARACTERS_MAX) -> None:
        self._characters_max = characters_max
        self._characters = 0
        # The text is the record's own, so it is hashed once, and found by being the same.
        self._read: collections.OrderedDict[tuple[str | None, str], bucket_policy.BucketPolicy] = (
            collections.OrderedDict()
        )

    def of(self, bucket: str | None, document: str) -> bucket_policy.BucketPolicy:
        """The policy of a bucket, or of a user where there is None.

        One that was accepted once and cannot be read now denies everything: its owner alone can
        replace or delete it.
        """
        key = (bucket, document)
        found = self._read.get(key)
        if found is not None:
            self._read.move_to_end(key)
            return found
        try:
            found = bucket_policy.parse(document.encode("utf-8", "replace"), bucket=bucket)
        except s3_error.S3Error as exc:
            whose = "a user denies everything" if bucket is None else f"bucket {bucket} is closed"
            LOG.error("the policy of %s, because it cannot be read: %s", whose, exc.message)
            closed = _CLOSED if bucket is not None else _CLOSED.replace(b'"Principal": "*", ', b"")
            found = bucket_policy.parse(closed, bucket=bucket)
        self._read[key] = found
        self._characters += len(document)
        while self._characters > self._characters_max and len(self._read) > 1:
            (_, dropped), _ = self._read.popitem(last=False)
            self._characters -= len(dropped)
        return found


_KEPT: Final = ReadPolicies()


def of(bucket: objects.BucketRecord) -> bucket_policy.BucketPolicy | None:
    """The policy of a bucket; None if it has none."""
    document = bucket.access.policy
    return None if document is None else _KEPT.of(bucket.name, document)


def decide(
    member: credentials.Member, action: str, resource: str, facts: evaluation.Facts
) -> bucket_policy.Decision:
    """What the policies of a user say together; without any, nothing.

    Args:
        action: As ``actions.KINDS`` names it.
        resource: ``bucket``, ``bucket/key``, or ``*`` of what is in no bucket.
    """
    found = bucket_policy.Decision.OPEN
    for document in member.policies:
        said = _KEPT.of(None, document).decide(None, action, resource, facts)
        if said is bucket_policy.Decision.DENIED:
            return said
        if said is bucket_policy.Decision.ALLOWED:
            found = said
    return found
