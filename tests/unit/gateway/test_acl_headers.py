"""ACLs in headers: canned names, grants, and what is neither."""

from __future__ import annotations

import known_users
import multidict
import pytest

from couchestor_domain import access
from couchestor_domain.access import Grant, Group, Permission
from couchestor_gateway.protocol import acl_headers, s3_error

USERS = known_users.KnownUsers("ada", "bob")
ALL = "http://acs.amazonaws.com/groups/global/AllUsers"
READ_ALL = Grant(Permission.READ, group=Group.ALL_USERS)


def _parse(
    *headers: tuple[str, str], owner: str = "bob", bucket_owner: str | None = "ada"
) -> access.Acl | None:
    given = multidict.CIMultiDict(headers)
    assert acl_headers.is_given(given, [name.lower() for name in given])
    return acl_headers.parse(given, owner=owner, bucket_owner=bucket_owner, users=USERS)


@pytest.mark.parametrize(
    ("name", "acl"),
    [
        ("private", None),
        ("public-read", (READ_ALL, Grant(Permission.FULL_CONTROL, "bob"))),
        (
            "public-read-write",
            (
                READ_ALL,
                Grant(Permission.WRITE, group=Group.ALL_USERS),
                Grant(Permission.FULL_CONTROL, "bob"),
            ),
        ),
        (
            "authenticated-read",
            (
                Grant(Permission.READ, group=Group.AUTHENTICATED_USERS),
                Grant(Permission.FULL_CONTROL, "bob"),
            ),
        ),
        (
            "bucket-owner-read",
            (Grant(Permission.FULL_CONTROL, "bob"), Grant(Permission.READ, "ada")),
        ),
        (
            "bucket-owner-full-control",
            (Grant(Permission.FULL_CONTROL, "bob"), Grant(Permission.FULL_CONTROL, "ada")),
        ),
    ],
)
def test_canned(name: str, acl: access.Acl | None) -> None:
    assert _parse(("X-Amz-Acl", name)) == acl


@pytest.mark.parametrize("name", ["bucket-owner-read", "bucket-owner-full-control"])
def test_what_speaks_of_the_owner_says_nothing_to_the_owner(name: str) -> None:
    assert _parse((acl_headers.CANNED, name), owner="ada") is None
    assert _parse((acl_headers.CANNED, name), bucket_owner=None) is None


def test_grants_stand_for_the_whole_list() -> None:
    grants = _parse(
        ("x-amz-grant-read", f'id="ada", uri="{ALL}"'),
        ("X-Amz-Grant-Read", "emailAddress=bob@example.com"),
        ("x-amz-grant-write-acp", "id=ada,id=ada"),
    )
    assert grants == (
        READ_ALL,
        Grant(Permission.READ, "ada"),
        Grant(Permission.READ, "bob"),
        Grant(Permission.WRITE_ACP, "ada"),
    )
    assert _parse(("x-amz-grant-full-control", "id=bob")) is None


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("x-amz-acl", "private"), ("x-amz-grant-read", "id=ada")], "InvalidRequest"),
        ([("x-amz-acl", "private"), ("X-Amz-Acl", "public-read")], "InvalidArgument"),
        ([("x-amz-acl", "open")], "InvalidArgument"),
        ([("x-amz-acl", "PRIVATE")], "InvalidArgument"),
        ([("x-amz-acl", "log-delivery-write")], "NotImplemented"),
        ([("x-amz-grant-read", "id=eve")], "InvalidArgument"),
        ([("x-amz-grant-read", "ada")], "InvalidArgument"),
        ([("x-amz-grant-read", "id=")], "InvalidArgument"),
        ([("x-amz-grant-read", "name=ada")], "InvalidArgument"),
        ([("x-amz-grant-read", "uri=http://x/AllUsers")], "InvalidArgument"),
        ([("x-amz-grant-read", "emailAddress=eve@example.com")], "UnresolvableGrantByEmailAddress"),
        ([("x-amz-grant-read", ",".join(["id=ada"] * 101))], "MalformedACLError"),
    ],
)
def test_refused(headers: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        _parse(*headers)
    assert failure.value.code == code


def test_what_is_empty_gives_nothing() -> None:
    assert not acl_headers.is_given({"x-amz-acl": " "}, ["x-amz-acl"])
    assert not acl_headers.is_given({"x-amz-date": "1"}, ["x-amz-date"])
