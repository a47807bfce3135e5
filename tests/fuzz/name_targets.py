"""What requests say in their targets, queries and headers."""

from __future__ import annotations

import urllib.parse
from typing import Final

from tests.fuzz import document_targets, target

from couchestor_domain import objects
from couchestor_gateway.edge import addressing, copy_header, query_names
from couchestor_gateway.operations import versions
from couchestor_gateway.protocol import (
    acl_headers,
    conditions,
    list_encoding,
    lock_headers,
    ranges,
    s3_error,
    tags,
    timestamps,
    unsupported_headers,
)

_NS: Final = 1_700_000_000_000_000_000
_FIRST_SECONDS: Final = -62_135_596_800
"""The year 1 begins."""
_END_SECONDS: Final = 253_402_300_800
"""The year 9999 ends: a zone gets beyond either."""
_DOMAIN: Final = "s3.example.com"
_SIZE_BYTES_MAX: Final = 2**63


def run_request_targets(data: bytes) -> None:
    """``Host`` and a request's target, a line each; an address is found again in what is written
    of it."""
    raw_host, _, raw_target = data.partition(b"\n")
    host, asked = target.text(raw_host), target.text(raw_target)
    for domain in (None, _DOMAIN):
        with target.s3_refusals():
            found = addressing.resolve(asked, host, domain)
            with target.s3_refusals():
                query = addressing.parse_query(found.raw_query)
                query_names.sub_resource(query)
                versions.named(query)
                list_encoding.key_encoder(query)(found.key)
                if found.raw_query.count("&") < 64:
                    written = urllib.parse.urlencode(query)
                    assert addressing.parse_query(written) == query
            path = f"/{urllib.parse.quote(found.bucket)}/{urllib.parse.quote(found.key)}"
            if "/" not in found.bucket and (found.bucket or not found.key):
                again = addressing.resolve(path, "h", None)
                assert (again.bucket, again.key) == (found.bucket, found.key)


def run_listing_parameters(data: bytes) -> None:
    """A page's size, a part marker and a continuation token, all of them the same text."""
    asked = target.text(data)
    query = {"max-keys": asked, "part-number-marker": asked, "encoding-type": asked}
    with target.s3_refusals():
        assert 0 <= list_encoding.page_limit(query, "max-keys") <= list_encoding.PAGE_LIMIT_MAX
    with target.s3_refusals():
        assert list_encoding.part_marker(query, "part-number-marker") >= 0
    with target.s3_refusals():
        list_encoding.key_encoder(query)
    with target.s3_refusals():
        list_encoding.decode_token(asked)
    with target.s3_refusals():
        versions.part_number(asked)
    try:
        key = data.decode()
    except UnicodeDecodeError:
        return
    assert list_encoding.decode_token(list_encoding.encode_token(key)) == key


def run_copy_sources(data: bytes) -> None:
    """``x-amz-copy-source``; what names an object names it when written again."""
    with target.s3_refusals():
        found = copy_header.parse(target.text(data))
        versions.named(addressing.parse_query(found.raw_query))
        written = f"/{urllib.parse.quote(found.bucket)}/{urllib.parse.quote(found.key)}"
        assert copy_header.parse(written)[:2] == (found.bucket, found.key)


def run_ranges(data: bytes) -> None:
    """The size of an object in decimal digits, and a ``Range``, a line each."""
    digits, _, raw = data.partition(b"\n")
    if not digits.isdigit() or len(digits) > 20:
        digits = b"1000"
    size_bytes, header = int(digits) % _SIZE_BYTES_MAX, target.text(raw)
    with target.s3_refusals():
        found = ranges.parse_range(header, size_bytes)
        if found is not None:
            start, length = found
            assert 0 <= start < start + length <= size_bytes
            written = f"bytes={start}-{start + length - 1}"
            assert ranges.parse_range(written, size_bytes) == found
            assert ranges.parse_copy_source_range(written, size_bytes) == found
    with target.s3_refusals():
        start, length = ranges.parse_copy_source_range(header, size_bytes)
        assert 0 <= start < start + length <= size_bytes


def run_conditions(data: bytes) -> None:
    """An ETag, and headers, a line each."""
    first, *lines = data.split(b"\n")
    etag, headers = target.text(first), target.headers(lines)
    for judge in (conditions.check_read, conditions.check_copy_source):
        with target.s3_refusals():
            judge(headers, etag=etag, modified_ns=_NS)
    with target.s3_refusals():
        asked = conditions.of_write(headers)
        assert isinstance(asked, objects.WriteConditions)
    conditions.is_range_wanted(headers, etag=etag, modified_ns=_NS)
    named = {"if-match": f'"{etag}"'}
    if not set(',"') & set(etag):
        assert conditions.evaluate(named, etag=etag, modified_ns=_NS) is conditions.Outcome.PROCEED


def run_tagging_headers(data: bytes) -> None:
    """``x-amz-tagging``; tags that are written as a header are read as the same."""
    with target.s3_refusals():
        found = tags.of_header(target.text(data))
        assert tags.of_header(urllib.parse.urlencode(found)) == found


def run_headers(data: bytes) -> None:
    """Headers of writes, a line each: access control, locks, and what is not done."""
    headers = target.headers(data.split(b"\n"))
    amz_names = [name for name in headers if name.startswith("x-amz-")]
    with target.s3_refusals():
        acl_headers.parse(
            headers, owner="ada", bucket_owner="bob", users=document_targets.EVERYBODY
        )
    with target.s3_refusals():
        lock = lock_headers.parse(headers, now_ns=0)
        told = {
            **lock_headers.of_retention(lock.retention),
            **lock_headers.of_legal_hold(lock.legal_hold),
        }
        try:
            assert lock_headers.of_retention(lock_headers.parse(told, now_ns=0).retention) == (
                lock_headers.of_retention(lock.retention)
            )
        except s3_error.S3Error:
            # Less than a millisecond after the epoch is written as the epoch, which is past.
            assert lock.retention is not None
            assert lock.retention.until_ns < 1_000_000
    with target.s3_refusals():
        unsupported_headers.refuse(headers, amz_names)


def run_moments(data: bytes) -> None:
    """Moments in each of three notations; what is read is written and read as the same."""
    given = target.text(data)
    seconds = timestamps.parse_http_date(given)
    if seconds is not None:
        assert timestamps.amz_date(seconds)
    if seconds is not None and _FIRST_SECONDS <= seconds < _END_SECONDS:
        assert timestamps.parse_http_date(timestamps.http_date(seconds * 10**9)) == seconds
    moment_ns = timestamps.parse_iso8601(given)
    if moment_ns is not None:
        written = timestamps.iso8601(moment_ns)
        assert timestamps.parse_iso8601(written) == moment_ns // 10**6 * 10**6
    seconds = timestamps.parse_amz_date(given)
    if seconds is not None:
        assert timestamps.amz_date(seconds) == given


_PERCENT: Final = (b"%", b"%2F", b"%00", b"%C3%A9", b"%ff", b"+", b"&", b"=", b"?", b"/", b"\xff")

TARGETS: Final = (
    target.Target(
        name="request targets",
        run=run_request_targets,
        seeds=(
            b"h:9000\n/b/a%20b/c?versionId=null&prefix=a%2Fb&encoding-type=url",
            b"b.s3.example.com\n/k/l?uploads",
            b"b\xff.s3.example.com\n/k",
            b"h\nhttp://h/b?list-type=2&max-keys=3&delimiter=%2F",
        ),
        tokens=(*_PERCENT, b"//", b"..", b"http://", b"versionId=", b".s3.example.com"),
    ),
    target.Target(
        name="listing parameters",
        run=run_listing_parameters,
        seeds=(b"1000", b"YWI=", b"url", b"10000"),
        tokens=(b"0", b"-", b"=", b"_", b"2147483648", "²".encode(), b"\xff"),
    ),
    target.Target(
        name="copy sources",
        run=run_copy_sources,
        seeds=(b"/b/a%20b?versionId=null", b"b/k"),
        tokens=_PERCENT,
    ),
    target.Target(
        name="ranges",
        run=run_ranges,
        seeds=(b"100\nbytes=0-9", b"100\nbytes=-5", b"0\nbytes=5-"),
        tokens=(b"bytes=", b"-", b",", b"0", b"18446744073709551616", b" ", "²".encode()),
    ),
    target.Target(
        name="conditions",
        run=run_conditions,
        seeds=(
            b'e\nif-match: "e", "f"\nif-none-match: W/"e"',
            b"e\nif-modified-since: Wed, 21 Oct 2026 07:28:00 GMT\nif-range: e",
            b"e\nx-amz-copy-source-if-unmodified-since: Wed, 21 Oct 2015 07:28:00 GMT",
        ),
        tokens=(b"*", b'"', b"W/", b", ", b"if-match:", b"if-range:", b"\n", b"Wed, ", b" -0000"),
    ),
    target.Target(
        name="tagging headers",
        run=run_tagging_headers,
        seeds=(b"a=b&c=%C3%A9+d", b"a"),
        tokens=_PERCENT,
    ),
    target.Target(
        name="headers",
        run=run_headers,
        seeds=(
            b'x-amz-grant-read: id="ada", uri="http://acs.amazonaws.com/groups/global/AllUsers"',
            b"x-amz-acl: public-read",
            b"x-amz-object-lock-mode: GOVERNANCE\n"
            b"x-amz-object-lock-retain-until-date: 2027-01-01T00:00:00Z\n"
            b"x-amz-object-lock-legal-hold: ON",
            b"x-amz-server-side-encryption: AES256",
        ),
        tokens=(b'id="', b'emailAddress="a@b"', b",", b"=", b'"', b"\n", b"x-amz-grant-write:"),
    ),
    target.Target(
        name="moments",
        run=run_moments,
        seeds=(
            b"Wed, 21 Oct 2026 07:28:00 GMT",
            b"Wednesday, 21-Oct-26 07:28:00 GMT",
            b"Wed Oct 21 07:28:00 2026",
            b"2026-10-21T07:28:00.123+01:00",
            b"2026-W01-1T00Z",
            b"20261021T072800Z",
            b"Oct 2 0:0 0-6666000000000065",
        ),
        tokens=(b"0000", b"9999", b"+2400", b"-0000", b"24:00:00", b"60", b" ", b":", b"Z", b"EST"),
    ),
)
