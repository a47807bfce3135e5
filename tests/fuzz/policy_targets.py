"""Policies of buckets and of users: read, and asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from tests.fuzz import target

from couchestor_gateway.protocol.policy import bucket_policy

_FACTS: Final = {
    "aws:sourceip": "10.1.2.3",
    "aws:currenttime": "2026-11-29T12:00:00Z",
    "aws:username": "bob",
    "aws:securetransport": "false",
    "s3:prefix": "a/*?$",
    "s3:max-keys": "10",
    "s3:x-amz-acl": "private",
}
_QUESTIONS: Final = (
    ("s3:GetObject", "b/a/b*c"),
    ("s3:PutObject", "b/" + "k" * 200),
    ("s3:ListBucket", "b"),
)


class _Facts:
    """A request about which little is known."""

    def values(self, key: str) -> Sequence[str] | None:
        value = _FACTS.get(key)
        return None if value is None else (value,)


def run_policies(data: bytes) -> None:
    """A document, read as a bucket's and as a user's; whoever asks gets an answer."""
    for bucket in ("b", None):
        with target.s3_refusals():
            policy = bucket_policy.parse(data, bucket=bucket, is_user={"bob"}.__contains__)
            for action, resource in _QUESTIONS:
                for caller in ("bob", None):
                    found = policy.decide(caller, action, resource, _Facts())
                    assert isinstance(found, bucket_policy.Decision)


def _policy(**members: object) -> bytes:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:Get*",
        "Resource": "arn:aws:s3:::b/*",
        **members,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()


def _user_policy(**members: object) -> bytes:
    document = json.loads(_policy(**members))
    del document["Statement"][0]["Principal"]
    return json.dumps(document).encode()


TARGETS: Final = (
    target.Target(
        name="policies",
        run=run_policies,
        seeds=(
            _policy(),
            _policy(Principal={"AWS": ["arn:aws:iam:::user/bob"]}, Sid="x", Effect="Deny"),
            _policy(
                Condition={
                    "IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1/128"]},
                    "StringLike": {"s3:prefix": "${aws:username, 'x'}/*${*}?"},
                    "NumericLessThanEquals": {"s3:max-keys": "10.5"},
                    "DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"},
                    "Bool": {"aws:SecureTransport": "false"},
                    "Null": {"s3:x-amz-acl": True},
                }
            ),
            _user_policy(NotAction="s3:*", Resource="*"),
            _user_policy(
                Condition={
                    "ForAllValues:StringEqualsIfExists": {"s3:RequestObjectTagKeys": ["a", "b"]},
                    "ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"},
                }
            ),
        ),
        tokens=(
            b"*",
            b"?",
            b"${",
            b"}",
            b"${aws:username}",
            b"'",
            b"\\ud800",
            b'"Condition": {"StringLike": {"s3:prefix": "*"}},',
            b'"NotResource": ',
            b'"NotPrincipal": ',
            b"IfExists",
            b"ForAnyValue:",
            b'"NumericEquals": {"s3:max-keys": ',
            b"1e999",
            b"NaN",
            b"sNaN",
            b"0x10",
            b'"arn:aws:s3:::b/a*b*c*d*e",',
            b'"IpAddress": {"aws:SourceIp": "',
            b"[",
            b"{",
            b",",
        ),
    ),
)
