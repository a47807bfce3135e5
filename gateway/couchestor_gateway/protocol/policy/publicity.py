"""Whether a statement lets the public in, as S3 means it.

A statement does that allows something to everybody, unless a condition ties it to fixed values: of
a source's addresses, account, network or ARN, or of a principal's.

Source: Amazon S3 User Guide, "Blocking public access", "The meaning of 'public'".
"""

from __future__ import annotations

from typing import Final

from couchestor_gateway.protocol.policy import conditions, operators, statements

_PREFIX_MIN: Final = {4: 8, 6: 32}
"""By version of IP: a range broader than this is as good as everybody."""
_FIXING: Final = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceorgid",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
    }
)
_EXACT: Final = frozenset(
    {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"}
)


def is_public(statement: statements.Statement) -> bool:
    """Whether it lets the public in."""
    return (
        statement.allows
        and (statement.principals.everybody or statement.but_principals)
        and not any(_fixes(condition) for condition in statement.conditions)
    )


def _fixes(condition: conditions.Condition) -> bool:
    # What holds of a request without the key ties it to nothing.
    if condition.if_exists or condition.quantifier is conditions.Quantifier.ALL:
        return False
    if condition.key == "aws:sourceip" and condition.operator == "IpAddress":
        networks = [operators.network(text) for text in condition.texts]
        return all(each.prefixlen >= _PREFIX_MIN[each.version] for each in networks)
    return (
        condition.key in _FIXING
        and condition.operator in _EXACT
        and not any(sign in text for text in condition.texts for sign in ("*", "?", "${"))
    )
