"""Headers that must not be ignored, and those that may be."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import multidict
import pytest

from couchestor_gateway.edge import presigned_headers, routing
from couchestor_gateway.protocol import conditions, s3_error, unsupported_headers, xml_reading

_HONOURED = {
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
    "x-amz-acl",
    "x-amz-bucket-object-lock-enabled",
    "x-amz-bypass-governance-retention",
    "x-amz-checksum-algorithm",
    "x-amz-checksum-mode",
    "x-amz-checksum-type",
    "x-amz-confirm-remove-self-bucket-access",
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-copy-source-range",
    "x-amz-expected-bucket-owner",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-max-parts",
    "x-amz-meta-",
    "x-amz-metadata-directive",
    "x-amz-mp-object-size",
    "x-amz-object-attributes",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-ownership",
    "x-amz-part-number-marker",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-source-expected-bucket-owner",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-transition-default-minimum-object-size",
}
_HARMLESS = {
    "x-amz-bucket-object-lock-token",  # whoever may configure a lock may enable it
    "x-amz-mfa",  # nothing asks for it
    "x-amz-object-annotation-directive",  # no object has any
    "x-amz-optional-object-attributes",  # what nothing has is left out
    "x-amz-request-payer",  # nobody pays
    "x-amz-skip-destination-validation",  # destinations are looked up by name, and sent nothing
}


@functools.cache
def _served_headers() -> frozenset[str]:
    """Names of the headers that the SDK may send with an operation we serve."""
    model: Any = botocore.session.get_session().get_service_model("s3")
    served = {operation.name for operation in routing.served()}
    names: set[str] = set()
    for operation in served:
        shape = model.operation_model(operation).input_shape
        for member in shape.members.values() if shape is not None else ():
            if member.serialization.get("location") in ("header", "headers"):
                names.add(member.serialization["name"].lower())
    return frozenset(names)


def test_every_header_of_the_sdk_is_honoured_or_harmless_or_refused() -> None:
    left = _served_headers() - _HONOURED - _HARMLESS - set(unsupported_headers.HARMLESS_VALUES)
    # Of the checksums those that are not served are refused where the others are read.
    assert not {name for name in left if not name.startswith("x-amz-checksum-")}
    assert not set(unsupported_headers.HARMLESS_VALUES) & (_HONOURED | _HARMLESS)


def _code(headers: list[tuple[str, str]]) -> str:
    given = multidict.CIMultiDict(headers)
    with pytest.raises(s3_error.S3Error) as failure:
        unsupported_headers.refuse(given, [name.lower() for name in given])
    return failure.value.code


@pytest.mark.parametrize(
    "name", sorted(set(unsupported_headers.HARMLESS_VALUES) - {"x-amz-security-token"})
)
def test_what_asks_for_more_is_refused_by_name(name: str) -> None:
    assert _code([("Host", "x"), (name.title(), "public-read")]) == "NotImplemented"


def test_temporary_credentials_are_told_to_be_unknown() -> None:
    assert _code([("X-Amz-Security-Token", "abc")]) == "InvalidToken"
    query = {"X-Amz-Signature": "00", "X-Amz-Security-Token": "abc"}
    assert _code(list(presigned_headers.merged({}, query).items())) == "InvalidToken"


def test_of_a_header_sent_twice_each_value_counts() -> None:
    hold = "x-amz-object-lock-event-hold"
    assert _code([(hold, "OFF"), (hold.title(), "ON")]) == "NotImplemented"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-object-lock-event-hold", "OFF"),
        ("x-amz-website-redirect-location", ""),
        ("x-amz-request-payer", "requester"),
        ("x-amz-never-heard-of", "x"),
    ],
)
def test_what_asks_for_nothing_is_let_through(name: str, value: str) -> None:
    unsupported_headers.refuse({name: value}, [name])


def test_a_write_if_unmodified_is_refused() -> None:
    with pytest.raises(s3_error.S3Error, match="If-Unmodified-Since") as failure:
        conditions.of_write({"if-unmodified-since": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert failure.value.status == 501


def test_a_new_bucket_with_tags_is_refused() -> None:
    document = b"<CreateBucketConfiguration>%s</CreateBucketConfiguration>"
    tags = b"<Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>"
    with pytest.raises(s3_error.S3Error, match="Tags") as failure:
        xml_reading.create_bucket_configuration(document % tags)
    assert failure.value.status == 501
    assert xml_reading.create_bucket_configuration(document % b"<Tags/>") == ""
