"""Access control lists as headers give them: by a canned name, or by grants.

Source: AWS S3 API reference, PutObjectAcl and "Access control list (ACL) overview", canned ACLs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from couchestor_domain import access
from couchestor_domain.access import Grant, Group, Permission
from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import grantees, s3_error

CANNED: Final = "x-amz-acl"
_GRANTS: Final = {
    "x-amz-grant-read": Permission.READ,
    "x-amz-grant-write": Permission.WRITE,
    "x-amz-grant-read-acp": Permission.READ_ACP,
    "x-amz-grant-write-acp": Permission.WRITE_ACP,
    "x-amz-grant-full-control": Permission.FULL_CONTROL,
}
NAMES: Final = frozenset((CANNED, *_GRANTS))
OWNER_FULL_CONTROL: Final = "bucket-owner-full-control"

_GROUP_GRANTS: Final = {
    "private": (),
    "public-read": (Grant(Permission.READ, group=Group.ALL_USERS),),
    "public-read-write": (
        Grant(Permission.READ, group=Group.ALL_USERS),
        Grant(Permission.WRITE, group=Group.ALL_USERS),
    ),
    "authenticated-read": (Grant(Permission.READ, group=Group.AUTHENTICATED_USERS),),
}
_BUCKET_OWNERS: Final = {
    "bucket-owner-read": Permission.READ,
    OWNER_FULL_CONTROL: Permission.FULL_CONTROL,
}
_NOT_IMPLEMENTED: Final = ("aws-exec-read", "log-delivery-write")


def is_given(headers: Mapping[str, str], amz_names: Collection[str]) -> bool:
    """Whether a request gives an ACL.

    Args:
        amz_names: The names of its ``x-amz-`` headers in lower case, so that a request without
            one costs one comparison of sets.
    """
    return not NAMES.isdisjoint(amz_names) and any(_value(headers, name) for name in NAMES)


def canned_name(headers: Mapping[str, str]) -> str:
    """The canned ACL that a request names; empty for none."""
    return _value(headers, CANNED)


def parse(
    headers: Mapping[str, str],
    *,
    owner: str,
    bucket_owner: str | None,
    users: credential_port.CredentialStore,
) -> access.Acl | None:
    """The ACL that a request's headers give.

    Args:
        headers: Case-insensitive.
        owner: Of what it is to be an ACL of.
        bucket_owner: Of the bucket an object is in; None for the ACL of a bucket.

    Raises:
        S3Error: InvalidRequest for a canned ACL beside grants, InvalidArgument for an unknown
            canned ACL or grantee, NotImplemented for a canned ACL of AWS's own services,
            UnresolvableGrantByEmailAddress, MalformedACLError for too many grants.
    """
    name = canned_name(headers)
    given = {
        permission: text
        for header, permission in _GRANTS.items()
        if (text := _value(headers, header))
    }
    if name and given:
        raise s3_error.make(
            "InvalidRequest",
            "Specifying both Canned ACLs and Header Grants is not allowed",
        )
    if name:
        return access.normal(_canned(name, owner, bucket_owner), owner=owner)
    grants: list[Grant] = []
    for permission, text in given.items():
        for kind, value in _grantees(text):
            grants.append(grantees.grant(permission, kind, value, users=users))
            if len(grants) > access.GRANTS_MAX:
                raise grantees.too_many()
    return access.normal(tuple(grants), owner=owner)


def _canned(name: str, owner: str, bucket_owner: str | None) -> access.Acl:
    full = Grant(Permission.FULL_CONTROL, owner)
    if name in _GROUP_GRANTS:
        return (*_GROUP_GRANTS[name], full)
    if name in _BUCKET_OWNERS:
        # S3 ignores what speaks of a bucket's owner where a bucket is what is being opened.
        if bucket_owner in (None, owner):
            return (full,)
        return (full, Grant(_BUCKET_OWNERS[name], bucket_owner or ""))
    if name in _NOT_IMPLEMENTED:
        raise s3_error.make(
            "NotImplemented",
            f"The canned ACL {name} grants something to a service that is not here.",
            Header=CANNED,
        )
    raise s3_error.make("InvalidArgument", ArgumentName=CANNED, ArgumentValue=name[:64])


def _value(headers: Mapping[str, str], name: str) -> str:
    """A header sent twice is one header with both values (RFC 9110, 5.3): neither is dropped."""
    return bare(",".join(v for n, v in headers.items() if n.lower() == name))


def bare(value: str) -> str:
    """A header's value without what a list may have around it."""
    return value.strip(" \t,")


def _grantees(text: str) -> list[tuple[str, str]]:
    """Kind and value of each grantee in a header: ``id="1", uri="http://..."``, quotes or not."""
    found: list[tuple[str, str]] = []
    for item in text.split(","):
        kind, separator, value = item.strip().partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if not separator or not value:
            raise s3_error.make(
                "InvalidArgument",
                'A grantee is written as id="...", uri="..." or emailAddress="...".',
                ArgumentName="x-amz-grant",
                ArgumentValue=item.strip()[:256],
            )
        found.append((kind.strip().lower(), value))
    return found
