"""Object locks as XML and as headers: what is taken, told, and refused with S3's sentence."""

from __future__ import annotations

import pytest

from couchestor_domain import locking
from couchestor_domain.locking import DefaultRetention, Mode, Retention, VersionLock
from couchestor_gateway.protocol import lock_documents, lock_headers, s3_error

NOW_NS = 1_800_000_000 * 10**9
UNTIL_NS = 1_900_000_000 * 10**9
UNTIL = "2030-03-17T17:46:40.000Z"


def _configuration(rule: str = "", enabled: str = "Enabled") -> bytes:
    return (
        f"<ObjectLockConfiguration><ObjectLockEnabled>{enabled}</ObjectLockEnabled>{rule}"
        "</ObjectLockConfiguration>"
    ).encode()


def _rule(content: str) -> bytes:
    return _configuration(f"<Rule><DefaultRetention>{content}</DefaultRetention></Rule>")


@pytest.mark.parametrize(
    ("document", "lock"),
    [
        (_configuration(), locking.BucketLock()),
        (
            _rule("<Mode>GOVERNANCE</Mode><Days>1</Days>"),
            locking.BucketLock(default=DefaultRetention(mode=Mode.GOVERNANCE, days=1)),
        ),
        (
            _rule("<Years>100</Years><Mode>COMPLIANCE</Mode>"),
            locking.BucketLock(default=DefaultRetention(mode=Mode.COMPLIANCE, years=100)),
        ),
    ],
)
def test_what_buckets_are_told(document: bytes, lock: locking.BucketLock) -> None:
    assert lock_documents.parse_configuration(document) == lock
    assert lock_documents.parse_configuration(lock_documents.write_configuration(lock)) == lock


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "MalformedXML"),
        (b"<ObjectLockConfiguration/>", "MalformedXML"),
        (_configuration(enabled="Disabled"), "MalformedXML"),
        (_configuration("<Rule/>"), "MalformedXML"),
        (_configuration("<Rules/>"), "MalformedXML"),
        (_rule(""), "MalformedXML"),
        (_rule("<Mode>governance</Mode><Days>1</Days>"), "MalformedXML"),
        (_rule("<Mode>GOVERNANCE</Mode>"), "MalformedXML"),
        (_rule("<Mode>GOVERNANCE</Mode><Weeks>1</Weeks>"), "MalformedXML"),
        (_rule("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), "MalformedXML"),
        (_rule("<Mode>GOVERNANCE</Mode><Days>one</Days>"), "MalformedXML"),
        (_rule("<Mode>GOVERNANCE</Mode><Days>0</Days>"), "InvalidRetentionPeriod"),
        (_rule("<Mode>GOVERNANCE</Mode><Years>-1</Years>"), "InvalidRetentionPeriod"),
        (_rule("<Mode>GOVERNANCE</Mode><Years>101</Years>"), "InvalidRetentionPeriod"),
        (_rule("<Mode>GOVERNANCE</Mode><Days>36501</Days>"), "InvalidRetentionPeriod"),
    ],
)
def test_what_buckets_are_not_told(document: bytes, code: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        lock_documents.parse_configuration(document)
    assert (failure.value.code, failure.value.status) == (code, 400)


def _retention(mode: str = "COMPLIANCE", until: str = UNTIL) -> bytes:
    return (
        f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    ).encode()


def test_retentions_and_holds() -> None:
    retention = Retention(mode=Mode.COMPLIANCE, until_ns=UNTIL_NS)
    assert lock_documents.parse_retention(_retention(), now_ns=NOW_NS) == retention
    written = lock_documents.write_retention(retention)
    assert lock_documents.parse_retention(written, now_ns=NOW_NS) == retention
    assert lock_documents.parse_retention(b"<Retention/>", now_ns=NOW_NS) is None
    for hold in (True, False):
        assert lock_documents.parse_legal_hold(lock_documents.write_legal_hold(hold)) is hold


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "MalformedXML"),
        (_retention("abc"), "MalformedXML"),
        (b"<Retention><Mode>COMPLIANCE</Mode></Retention>", "MalformedXML"),
        (_retention(until=""), "InvalidArgument"),
        (_retention(until="2030-03-17"), "InvalidArgument"),
        (_retention(until="2020-01-01T00:00:00Z"), "InvalidArgument"),
        (_retention(until="2500-01-01T00:00:00Z"), "InvalidArgument"),
    ],
)
def test_retentions_that_are_refused(document: bytes, code: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        lock_documents.parse_retention(document, now_ns=NOW_NS)
    assert failure.value.code == code


@pytest.mark.parametrize(
    "document",
    [b"", b"<LegalHold/>", b"<LegalHold><Status>on</Status></LegalHold>", b"<Hold/>"],
)
def test_holds_that_are_refused(document: bytes) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        lock_documents.parse_legal_hold(document)
    assert failure.value.code == "MalformedXML"


def test_headers_of_writes_and_answers() -> None:
    headers = {
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": UNTIL,
        "x-amz-object-lock-legal-hold": "OFF",
    }
    retention = Retention(mode=Mode.GOVERNANCE, until_ns=UNTIL_NS)
    lock = lock_headers.parse(headers, now_ns=NOW_NS)
    assert lock == VersionLock(retention=retention, legal_hold=False)
    told = lock_headers.of_retention(retention) | lock_headers.of_legal_hold(False)
    assert told == headers
    assert lock_headers.parse({}, now_ns=NOW_NS) is locking.NO_LOCK
    assert lock_headers.of_retention(None) == lock_headers.of_legal_hold(None) == {}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"mode": "GOVERNANCE"}, "must both be supplied"),
        ({"retain-until-date": UNTIL}, "must both be supplied"),
        ({"mode": "governance", "retain-until-date": UNTIL}, "wormMode"),
        ({"mode": "GOVERNANCE", "retain-until-date": "tomorrow"}, "ISO 8601"),
        (
            {"mode": "GOVERNANCE", "retain-until-date": "2020-01-01T00:00:00Z"},
            "must be in the future",
        ),
        ({"legal-hold": "yes"}, "either of"),
    ],
)
def test_headers_that_are_refused(headers: dict[str, str], message: str) -> None:
    given = {f"x-amz-object-lock-{name}": value for name, value in headers.items()}
    with pytest.raises(s3_error.S3Error, match=message) as failure:
        lock_headers.parse(given, now_ns=NOW_NS)
    assert failure.value.code == "InvalidArgument"
