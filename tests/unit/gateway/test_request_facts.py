"""What requests say of the keys of conditions."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, cast

import multidict
import pytest
from aiohttp import web
from known_users import KnownUsers

from couchestor_domain import objects
from couchestor_gateway.edge import addressing, request_facts, request_head
from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import operation_needs, request_identity, timestamps
from couchestor_gateway.protocol.operation_needs import Asked
from couchestor_gateway.protocol.policy import condition_keys, evaluation

NOW_NS = 1_800_000_000_000_000_000
BUCKET = objects.BucketRecord(name="books", owner="ada", created_ns=1, region="us-east-1")


class _Clock:
    def now_ns(self) -> int:
        return NOW_NS

    def monotonic_ns(self) -> int:
        return 0


class _Transport:
    """Of a connection, with TLS or without."""

    def __init__(self, version: str) -> None:
        self._version = version

    def get_extra_info(self, name: str) -> object:
        assert name == "ssl_object"
        return types.SimpleNamespace(version=lambda: self._version) if self._version else None


def _head(
    headers: Mapping[str, str] | None = None,
    *,
    query: Mapping[str, str] | None = None,
    caller: str | None = "bob",
    remote: str | None = "10.1.2.3",
    tls: str = "",
    amz_date: str = "",
) -> request_head.RequestHead:
    given = multidict.CIMultiDict(headers or {})
    raw = types.SimpleNamespace(
        headers=given, remote=remote, secure=bool(tls), transport=_Transport(tls)
    )
    credential = None
    if caller is not None:
        credential = credentials.Credential(
            access_key="key", secret_key="secret", owner=caller, display_name=caller
        )
    store: Any = None
    return request_head.RequestHead(
        cast(web.BaseRequest, raw),
        target=addressing.Target("/books/k", "", "books", "k"),
        headers=given,
        amz_names=[name.lower() for name in given],
        query=query or {},
        identity=request_identity.Identity(
            credential=credential,
            payload=request_identity.PayloadKind.UNSIGNED,
            amz_date=amz_date,
        ),
        services=request_head.Services(
            users=KnownUsers("bob"),
            buckets=store,
            objects=store,
            uploads=store,
            region="us-east-1",
            host_id="host",
            notification_targets=frozenset(),
            clock=_Clock(),
            offload=store,
            stall_seconds=1.0,
            body_bytes_max=1,
        ),
    )


def _values(key: str, head: request_head.RequestHead, **more: Any) -> list[str] | None:
    facts = request_facts.RequestFacts(head, BUCKET, **more)
    values = facts.values(condition_keys.normal(key))
    return None if values is None else list(values)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("10.1.2.3", ["10.1.2.3"]),
        ("::ffff:10.1.2.3", ["10.1.2.3"]),
        ("fe80::1%eth0", ["fe80::1"]),
        ("", None),
        (None, None),
    ],
)
def test_where_it_comes_from(remote: str | None, address: list[str] | None) -> None:
    assert _values("aws:SourceIp", _head(remote=remote)) == address


def test_how_it_comes() -> None:
    assert _values("s3:TlsVersion", _head(tls="TLSv1.3")) == ["1.3"]
    assert _values("aws:SecureTransport", _head(tls="TLSv1.3")) == ["true"]
    assert _values("s3:TlsVersion", _head()) is None
    assert _values("aws:SecureTransport", _head()) == ["false"]


def test_who_sends_it() -> None:
    signed, nobody = _head(), _head(caller=None)
    for key, of_bob, of_nobody in (
        ("aws:PrincipalArn", ["arn:aws:iam:::user/bob"], None),
        ("aws:PrincipalAccount", ["bob"], None),
        ("aws:PrincipalType", ["Account"], ["Anonymous"]),
        ("aws:userid", ["bob"], ["anonymous"]),
        ("aws:username", ["bob"], None),
        ("s3:authType", ["REST-HEADER"], None),
        ("s3:signatureversion", ["AWS4-HMAC-SHA256"], None),
        ("s3:x-amz-content-sha256", ["UNSIGNED-PAYLOAD"], None),
    ):
        assert _values(key, signed) == of_bob, key
        assert _values(key, nobody) == of_nobody, key
    presigned = _head(query={"X-Amz-Signature": "00"})
    assert _values("s3:authType", presigned) == ["REST-QUERY-STRING"]
    assert _values("s3:x-amz-content-sha256", _head({"X-Amz-Content-Sha256": "00"})) == ["00"]


def test_when_it_was_signed() -> None:
    amz_date = timestamps.amz_date(NOW_NS // 10**9 - 90)
    assert _values("s3:signatureAge", _head(amz_date=amz_date)) == ["90000"]
    assert _values("s3:signatureAge", _head()) is None
    assert _values("aws:EpochTime", _head()) == ["1800000000"]
    assert _values("aws:CurrentTime", _head()) == ["2027-01-15T08:00:00.000Z"]


def test_what_it_asks_for() -> None:
    head = _head(
        {
            "X-Amz-Acl": "private",
            "x-amz-object-lock-mode": "GOVERNANCE",
            "x-amz-object-lock-retain-until-date": "2027-01-17T07:00:00Z",
            "If-None-Match": "*",
            "Referer": "https://a.example/",
        },
        query={"prefix": "a/", "delimiter": "", "max-keys": "5"},
    )
    for key, values in (
        ("s3:x-amz-acl", ["private"]),
        ("s3:x-amz-grant-read", None),
        ("s3:object-lock-mode", ["GOVERNANCE"]),
        ("s3:object-lock-legal-hold", None),
        ("s3:object-lock-retain-until-date", ["2027-01-17T07:00:00Z"]),
        ("s3:object-lock-remaining-retention-days", ["2"]),
        ("s3:if-none-match", ["*"]),
        ("s3:if-match", None),
        ("aws:Referer", ["https://a.example/"]),
        ("s3:prefix", ["a/"]),
        ("s3:delimiter", [""]),
        ("s3:max-keys", ["5"]),
        ("s3:ResourceAccount", ["ada"]),
        ("s3:VersionId", None),
        ("s3:ObjectCreationOperation", ["true"]),
        ("s3:DataAccessPointArn", None),
        ("aws:PrincipalOrgID", None),
        ("aws:PrincipalTag/team", None),
    ):
        assert _values(key, head) == values, key
    assert _values("s3:prefix", head, prefix="k") == ["k"]
    assert _values("s3:VersionId", head, version_id="null") == ["null"]


def test_of_a_lock_in_the_body_that_counts_and_no_header() -> None:
    head = _head({"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-legal-hold": "ON"})
    lock = {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2027-01-17T07:00:00Z",
    }
    for key, values in (
        ("s3:object-lock-mode", ["COMPLIANCE"]),
        ("s3:object-lock-legal-hold", None),
        ("s3:object-lock-remaining-retention-days", ["2"]),
    ):
        assert _values(key, head, lock=lock) == values
        assert _values(key, head, lock={}) is None
    part = _head(query={"partNumber": "1", "uploadId": "u"})
    assert _values("s3:ObjectCreationOperation", part) == ["false"]


def test_tags() -> None:
    head = _head({"x-amz-tagging": "a=1&b="})
    record = objects.ObjectRecord(
        bucket="books", key="k", size_bytes=0, etag="", modified_ns=1, tags={"c": "3"}
    )
    assert _values("s3:RequestObjectTag/a", head) == ["1"]
    assert _values("s3:RequestObjectTag/b", head) == [""]
    assert _values("s3:RequestObjectTag/c", head, record=record) is None
    assert _values("s3:RequestObjectTagKeys", head) == ["a", "b"]
    assert _values("s3:RequestObjectTagKeys", _head()) is None
    assert _values("s3:RequestObjectTag/a", head, tags={"a": "2"}) == ["2"]
    assert _values("s3:ExistingObjectTag/c", head, record=record) == ["3"]
    assert _values("s3:ExistingObjectTag/c", head) is None
    # A copy has its source's tags, whatever the header says, unless it replaces them.
    copying = {"x-amz-tagging": "a=1", "x-amz-copy-source": "/books/%C3%A9?versionId=v"}
    assert _values("s3:RequestObjectTag/a", _head(copying)) is None
    copying["x-amz-tagging-directive"] = "replace"
    assert _values("s3:RequestObjectTag/a", _head(copying)) == ["1"]
    assert _values("s3:x-amz-copy-source", _head(copying)) == ["books/é"]


def test_a_header_counts_as_operations_take_it() -> None:
    head = _head(
        {
            "x-amz-acl": "public-read, ",
            "x-amz-grant-read": " id=ada,",
            "x-amz-metadata-directive": "replace",
            "If-None-Match": "",
            "Referer": " ",
            "x-amz-storage-class": "",
        },
        query={"max-keys": ""},
    )
    for key, values in (
        ("s3:x-amz-acl", ["public-read"]),
        ("s3:x-amz-grant-read", ["id=ada"]),
        ("s3:x-amz-metadata-directive", ["REPLACE"]),
        ("s3:if-none-match", None),
        ("aws:Referer", None),
        ("s3:x-amz-storage-class", None),
        ("s3:max-keys", None),
    ):
        assert _values(key, head) == values, key


def test_a_header_that_comes_twice_is_not_taken_for_either() -> None:
    twice = multidict.CIMultiDict([("x-amz-acl", "private"), ("X-Amz-Acl", "public-read")])
    with pytest.raises(evaluation.UndecidedError):
        _values("s3:x-amz-acl", _head(twice))


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({}, set()),
        ({"x-amz-acl": "private"}, {Asked.ACL}),
        ({"x-amz-grant-read": "id=ada"}, {Asked.ACL}),
        ({"x-amz-tagging": ""}, set()),
        ({"x-amz-tagging": "a=b"}, {Asked.TAGS}),
        ({"x-amz-object-lock-mode": "GOVERNANCE"}, {Asked.RETENTION}),
        ({"x-amz-object-lock-legal-hold": "ON"}, {Asked.LEGAL_HOLD}),
        ({"x-amz-bypass-governance-retention": "True"}, {Asked.BYPASS}),
        ({"x-amz-bypass-governance-retention": "false"}, set()),
    ],
)
def test_what_else_it_asks_for(headers: dict[str, str], asked: set[Asked]) -> None:
    head = _head(headers)
    found = {what for what in operation_needs.Asked if request_facts.asks_for(head, what)}
    assert found == asked


class _CountingUsers(KnownUsers):
    """Counts who is looked for."""

    def __init__(self, *user_ids: str) -> None:
        super().__init__(*user_ids)
        self.asked: list[str] = []

    def user(self, user_id: str) -> credentials.User | None:
        self.asked.append(user_id)
        return super().user(user_id)


def test_a_listing_looks_each_owner_up_once() -> None:
    """Names of tenants are read from the index, and a page shows a thousand owners."""
    head = _head()
    head.users = users = _CountingUsers("bob")
    assert {head.display_name("bob") for _ in range(1000)} == {"Bob"}
    assert {head.display_name("gone") for _ in range(1000)} == {"gone"}
    assert users.asked == ["bob", "gone"]


def test_what_a_user_of_a_tenant_is_called() -> None:
    """As IAM says it of users; the root of a tenant is its account."""
    member = credentials.Member(name="bob", principal="111122223333:user/bob")
    expected = {
        "aws:username": "bob",
        "aws:userid": "111122223333:user/bob",
        "aws:PrincipalArn": "arn:aws:iam::111122223333:user/bob",
        "aws:PrincipalType": "User",
        "aws:PrincipalAccount": "111122223333",
        "s3:ResourceAccount": "ada",
    }
    head = _head(caller="111122223333")
    facts = request_facts.RequestFacts(head, BUCKET)
    assert facts.values("aws:principaltype") == ("Account",)
    head.member = member
    for key, value in expected.items():
        assert facts.values(condition_keys.normal(key)) == (value,)
    assert request_facts.RequestFacts(head, None).values("s3:resourceaccount") is None
