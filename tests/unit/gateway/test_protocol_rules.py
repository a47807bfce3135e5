"""Errors, digests, ranges, conditions, names, dates and XML documents."""

from __future__ import annotations

import base64
import hashlib

import pytest

from couchestor_domain import errors, objects
from couchestor_gateway.protocol import (
    bucket_names,
    conditions,
    digests,
    ranges,
    request_identity,
    s3_error,
    timestamps,
    xml_reading,
)

PLAIN = request_identity.Identity(credential=None, payload=request_identity.PayloadKind.UNSIGNED)
TRAILING = request_identity.Identity(
    credential=None, payload=request_identity.PayloadKind.STREAMING_UNSIGNED_TRAILER
)
MOMENT_NS = 1_445_412_480_123_456_789


def _leaves(kind: type[errors.CouchestorError]) -> list[type[errors.CouchestorError]]:
    found = [kind]
    for child in kind.__subclasses__():
        found += _leaves(child)
    return found


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.NoSuchKeyError("x"), "NoSuchKey", 404),
        (errors.StoreFullError("x"), "InsufficientStorage", 507),
        (errors.StoreReadOnlyError("x"), "ServiceUnavailable", 503),
        (errors.OverloadedError("x", retry_after_seconds=3), "SlowDown", 503),
        (errors.InsufficientShardsError("x"), "ServiceUnavailable", 503),
        (errors.DigestMismatchError("x"), "BadDigest", 400),
        (errors.StripeNotFoundError("x"), "InternalError", 500),
    ],
)
def test_errors_of_the_store(error: errors.CouchestorError, code: str, status: int) -> None:
    made = s3_error.from_store(error)
    assert (made.code, made.status) == (code, status)


@pytest.mark.parametrize(
    ("error", "elements"),
    [
        (errors.NoSuchKeyError("x", bucket="b", key="k"), {"Key": "k"}),
        (errors.NoSuchBucketError("x", bucket="b"), {"BucketName": "b"}),
        (errors.BucketNotEmptyError("x", bucket="b"), {"BucketName": "b"}),
        (errors.BucketAlreadyExistsError("x", bucket="b", owner="o"), {"BucketName": "b"}),
        (errors.NoSuchUploadError("x", upload_id="u"), {"UploadId": "u"}),
        (
            errors.NoSuchVersionError("x", bucket="b", key="k", version_id="v"),
            {"Key": "k", "VersionId": "v"},
        ),
        (errors.NoSuchSettingError("x", bucket="b", setting="tags"), {"BucketName": "b"}),
        (errors.InvalidPartError("x", part=3), {"PartNumber": "3"}),
        (
            errors.PartTooSmallError("x", part=1, size_bytes=4, size_bytes_min=5, etag="e"),
            {"ProposedSize": "4", "MinSizeAllowed": "5", "PartNumber": "1", "ETag": "e"},
        ),
        (errors.PreconditionFailedError("x", condition="If-Match"), {"Condition": "If-Match"}),
        (errors.DeviceIoError("x", device="secret"), {}),
    ],
)
def test_errors_name_what_they_are_about(
    error: errors.CouchestorError, elements: dict[str, str]
) -> None:
    assert dict(s3_error.from_store(error).extra) == elements


def test_too_few_devices_are_told_apart_from_other_trouble() -> None:
    write, read, other = (
        s3_error.from_store(error).message
        for error in (
            errors.StoreReadOnlyError("x"),
            errors.InsufficientShardsError("x"),
            errors.DeviceIoError("x"),
        )
    )
    assert ("for a write" in write, "can be read" in read) == (True, True)
    assert "devices" not in other


def test_every_domain_error_has_an_s3_face() -> None:
    for kind in _leaves(errors.CouchestorError):
        if not issubclass(kind, s3_error.S3Error):
            assert s3_error.from_store(kind("secret /dev/sdx")).status >= 400
    error = s3_error.make("InvalidArgument", "bad \udcff", Name="\udcff")
    assert s3_error.from_store(error) is error
    assert "/dev" not in s3_error.from_store(errors.DeviceIoError("/dev/sdx")).message
    assert (error.message + error.extra["Name"]).encode() == b"bad ??"


def _digest(body: bytes, headers: dict[str, str], **trailers: str) -> objects.BodyDigests:
    digester = digests.BodyDigester.from_headers(headers, TRAILING if trailers else PLAIN)
    digester.update(memoryview(body)[:3])
    digester.update(memoryview(body)[3:])
    return digester.finish({f"x-amz-checksum-{name}": value for name, value in trailers.items()})


def test_digests_match() -> None:
    md5 = base64.b64encode(hashlib.md5(b"123456789").digest()).decode()
    found = _digest(b"123456789", {"content-md5": md5, "x-amz-checksum-crc64nvme": "rosUhgp5mIg="})
    assert found.etag == "25f9e794323b453885f5181f1b624d0b"
    assert found.checksums == {"crc64nvme": "rosUhgp5mIg="}
    trailer = {"x-amz-trailer": "x-amz-checksum-crc32c"}
    assert _digest(b"123456789", trailer, crc32c="4waSgw==").checksums == {"crc32c": "4waSgw=="}


@pytest.mark.parametrize(
    ("headers", "trailers", "code"),
    [
        ({"content-md5": "AAAA"}, {}, "InvalidDigest"),
        ({"content-md5": "A" * 22 + "=="}, {}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, {}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAA"}, {}, "BadDigest"),
        ({"x-amz-checksum-crc32": "a", "x-amz-checksum-sha1": "b"}, {}, "InvalidRequest"),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, {"crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, {"sha1": "x"}, "MalformedTrailerError"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, {}, "InvalidRequest"),
        ({"x-amz-checksum-sha512": "AAAA"}, {}, "InvalidRequest"),
    ],
)
def test_digests_differ(headers: dict[str, str], trailers: dict[str, str], code: str) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        _digest(b"123456789", headers, **trailers)
    assert caught.value.code == code


@pytest.mark.parametrize("algorithms", [(), ("sha256",)])
def test_signed_payload(algorithms: tuple[str, ...]) -> None:
    for body, good in ((b"abc", True), (b"abd", False)):
        digester = digests.BodyDigester(
            algorithms, payload_sha256=hashlib.sha256(b"abc").hexdigest()
        )
        digester.update(body)
        if good:
            digester.finish({})
        else:
            with pytest.raises(s3_error.S3Error) as caught:
                digester.finish({})
            assert caught.value.code == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-3", (0, 4)),
        ("bytes=4-", (4, 6)),
        ("bytes=-3", (7, 3)),
        ("bytes=-30", (0, 10)),
        ("bytes=8-99999999999999999999999", (8, 2)),
        ("bytes=3-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=-", None),
    ],
)
def test_ranges(header: str | None, found: tuple[int, int] | None) -> None:
    assert ranges.parse_range(header, 10) == found


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_unsatisfiable_ranges(header: str, size: int) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        ranges.parse_range(header, size)
    assert caught.value.status == 416


def test_copy_source_ranges() -> None:
    assert ranges.parse_copy_source_range("bytes=2-9", 10) == (2, 8)
    for header, code in (("bytes=2-", "InvalidArgument"), ("bytes=2-10", "InvalidRange")):
        with pytest.raises(s3_error.S3Error) as caught:
            ranges.parse_copy_source_range(header, 10)
        assert caught.value.code == code


AT = "Wed, 21 Oct 2015 07:28:00 GMT"
BEFORE = "Wed, 21 Oct 2015 07:27:59 GMT"


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, conditions.Outcome.PROCEED),
        ({"if-match": '"a"'}, conditions.Outcome.PROCEED),
        ({"if-match": 'W/"a"'}, conditions.Outcome.FAILED),
        ({"if-match": '"b", "c"'}, conditions.Outcome.FAILED),
        ({"if-match": '"a"', "if-unmodified-since": BEFORE}, conditions.Outcome.PROCEED),
        ({"if-unmodified-since": BEFORE}, conditions.Outcome.FAILED),
        ({"if-unmodified-since": AT}, conditions.Outcome.PROCEED),
        ({"if-none-match": 'W/"a"'}, conditions.Outcome.NOT_MODIFIED),
        ({"if-none-match": "*"}, conditions.Outcome.NOT_MODIFIED),
        ({"if-none-match": '"b"', "if-modified-since": AT}, conditions.Outcome.PROCEED),
        ({"if-modified-since": AT}, conditions.Outcome.NOT_MODIFIED),
        ({"if-modified-since": BEFORE}, conditions.Outcome.PROCEED),
        ({"if-modified-since": "yesterday"}, conditions.Outcome.PROCEED),
    ],
)
def test_conditions(headers: dict[str, str], outcome: conditions.Outcome) -> None:
    assert conditions.evaluate(headers, etag="a", modified_ns=MOMENT_NS) is outcome
    copied = {f"x-amz-copy-source-{name}": value for name, value in headers.items()}
    if outcome is conditions.Outcome.PROCEED:
        conditions.check_copy_source(copied, etag="a", modified_ns=MOMENT_NS)
        return
    with pytest.raises(s3_error.S3Error) as caught:
        conditions.check_copy_source(copied, etag="a", modified_ns=MOMENT_NS)
    assert caught.value.status == 412
    with pytest.raises(s3_error.S3Error) as caught:
        conditions.check_read(headers, etag="a", modified_ns=MOMENT_NS)
    assert caught.value.status == (412 if outcome is conditions.Outcome.FAILED else 304)


def test_write_conditions() -> None:
    found = conditions.of_write({"if-match": '"a"', "if-none-match": "*"})
    assert found == objects.WriteConditions(if_match="a", if_none_match="*")
    assert conditions.of_write({}) is objects.NO_CONDITIONS


def test_timestamps() -> None:
    assert timestamps.http_date(MOMENT_NS) == AT
    assert timestamps.iso8601(MOMENT_NS) == "2015-10-21T07:28:00.123Z"
    assert timestamps.parse_iso8601("2015-10-21T07:28:00.123Z") == 1_445_412_480_123_000_000
    assert timestamps.parse_http_date(AT) == 1_445_412_480
    assert timestamps.parse_amz_date("20151021T072800Z") == 1_445_412_480
    assert timestamps.amz_date(1_445_412_480) == "20151021T072800Z"
    for bad in ("", "20151321T072800Z", "2015-10-21T07:28", "x" * 100):
        assert timestamps.parse_amz_date(bad) is None
        assert timestamps.parse_http_date(bad) is None or bad.startswith("2015-")
        assert timestamps.parse_iso8601(bad) is None


@pytest.mark.parametrize("zone", ["-6666000000000065", "+9999999", "-2401", "+9900"])
def test_a_date_in_a_zone_that_there_cannot_be_is_none(zone: str) -> None:
    assert timestamps.parse_http_date(f"Wed, 21 Oct 2015 07:28:00 {zone}") is None


def test_dates_at_the_ends_of_the_calendar_can_be_written() -> None:
    for text in ("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359"):
        seconds = timestamps.parse_http_date(text)
        assert seconds is not None
        assert timestamps.amz_date(seconds).endswith("Z")


def test_bucket_names() -> None:
    for name in ("abc", "a.b-c", "a" * 63, "1.2.3.4.5"):
        bucket_names.validate(name)
    for name in ("ab", "a" * 64, "Abc", "-ab", "ab.", "a..b", "a.-b", "1.2.3.4", "a_b", "xn--ab"):
        with pytest.raises(s3_error.S3Error, match="not valid"):
            bucket_names.validate(name)


def test_xml_documents() -> None:
    namespace = b'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    asked = xml_reading.create_bucket_configuration(
        b"<CreateBucketConfiguration %s><LocationConstraint>eu</LocationConstraint>"
        b"</CreateBucketConfiguration>" % namespace
    )
    assert asked == "eu"
    doomed = xml_reading.delete(
        b"<Delete %s><Object><Key> a&amp;b </Key></Object><Object><Key>c</Key>"
        b"<VersionId>null</VersionId><ETag>&quot;e&quot;</ETag></Object>"
        b"<Object><Key>d</Key><ETag>*</ETag></Object><Quiet>true</Quiet></Delete>" % namespace
    )
    assert doomed.quiet
    assert doomed.objects == (
        xml_reading.DeleteItem(" a&b ", None),
        xml_reading.DeleteItem("c", "null", "e"),
        xml_reading.DeleteItem("d", None, "*"),
    )
    (part,) = xml_reading.complete_multipart_upload(
        b"<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>&quot;ab&quot;</ETag>"
        b"<ChecksumSHA1>x</ChecksumSHA1></Part></CompleteMultipartUpload>"
    )
    assert part == objects.CompletedPart(number=7, etag="ab", checksums={"sha1": "x"})


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<Delete/>",
        b"<Delete><Object/></Delete>",
        b"<Delete><Object><Key>a</Key></Object>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Delete><Object><Key>&a;</Key></Object></Delete>',
        b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1001 + b"</Delete>",
        b"<a>" * 50,
    ],
)
def test_malformed_xml(document: bytes) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        xml_reading.delete(document)
    assert caught.value.code == "MalformedXML"


@pytest.mark.parametrize(
    ("validator", "wanted"),
    [
        (None, True),
        ('"a"', True),
        ("a", True),
        ('"b"', False),
        ('W/"a"', False),
        ("*", False),
        (AT, True),
        (BEFORE, False),
        ("Wed, 21 Oct 2015 07:28:01 GMT", False),
        ("", False),
    ],
)
def test_a_range_counts_only_of_the_object_that_if_range_names(
    validator: str | None, wanted: bool
) -> None:
    headers = {} if validator is None else {"if-range": validator}
    found = conditions.is_range_wanted(headers, etag="a", modified_ns=MOMENT_NS)
    assert found is wanted
