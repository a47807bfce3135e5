"""Which operations of S3 are served, how far, and by which test each is held."""

from __future__ import annotations

import ast
import functools
import pathlib
from collections import defaultdict
from typing import Final, NamedTuple

import botocore
import botocore.session

from couchestor_gateway.edge import routing

FUNCTIONAL: Final = pathlib.Path(__file__).resolve().parents[1] / "functional"

OLD_NAMES: Final = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}
"""Deprecated operations, which ask for what newer ones do."""

PARTIAL: Final = {
    "CreateBucket": "no tags in the request; no other region than the node's",
    "CopyObject": "no server-side encryption, no storage class but STANDARD",
    "PutObject": "no server-side encryption, no storage class but STANDARD, no redirect, no append",
    "CreateMultipartUpload": "no server-side encryption, no storage class but STANDARD",
    "GetObject": "no server-side encryption",
    "PutBucketLifecycleConfiguration": "transitions are refused: there is one storage class",
    "PutBucketNotificationConfiguration": "targets are webhooks that the node knows",
    "PutBucketLogging": "source and target have one owner",
    "PutBucketAcl": "no grants to the group LogDelivery",
    "PutObjectAcl": "no grants to the group LogDelivery",
    "PutBucketVersioning": "no MFA delete",
    "PutObjectLockConfiguration": "for buckets created with object lock",
}
"""Served operations that do not do all that S3's do -> what is missing."""

HELD_BY_HAND: Final = {
    "GetBucketLifecycle": "test_lifecycle.py",
    "PutBucketLifecycle": "test_lifecycle.py",
    "GetBucketNotification": "test_notifications.py",
    "PutBucketNotification": "test_notifications.py",
}
"""Operations that no test calls by the SDK's name for them -> the test of what they ask for."""


class Line(NamedTuple):
    """One operation."""

    name: str
    verdict: str
    """yes, partial or no."""
    note: str
    tests: tuple[str, ...]
    """Files below tests/functional that call it, over HTTP, on the real daemon."""


@functools.cache
def lines() -> tuple[Line, ...]:
    """Every operation that the SDK knows, in its order."""
    served = {operation.name for operation in routing.served()}
    held = _calls()
    found = []
    for name in sorted(botocore.session.get_session().get_service_model("s3").operation_names):
        newer = OLD_NAMES.get(name, name)
        if newer not in served:
            found.append(Line(name, "no", "", ()))
            continue
        by_hand = HELD_BY_HAND.get(name)
        tests = (by_hand,) if by_hand else tuple(sorted(held[botocore.xform_name(name)]))
        note = PARTIAL.get(newer, "")
        if newer != name:
            note = f"as {newer}" + (f": {note}" if note else "")
        found.append(Line(name, "partial" if newer in PARTIAL else "yes", note, tests))
    return tuple(found)


def _calls() -> dict[str, set[str]]:
    """Method of a client -> files whose tests call it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in FUNCTIONAL.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found[node.func.attr].add(path.name)
    return found
