"""What a form's fields ask for, and who signed them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import typing

import pytest
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials

from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import (
    form_data,
    post_fields,
    post_policy,
    post_signature,
    s3_error,
    sigv4_signatures,
)

CREDENTIAL = credentials.Credential(
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    owner="alice",
    display_name="alice",
)
# AWS's own example of a form: "Browser-Based Upload using HTTP POST (Using AWS Signature
# Version 4)"; policy and signature stand there as they stand here.
AWS_POLICY = (
    "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7"
    "ImJ1Y2tldCI6ICJzaWd2NGV4YW1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91"
    "c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3Qi"
    "OiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2FkLmh0bWwi"
    "fSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRh"
    "LXV1aWQiOiAiMTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVT"
    "MjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNy"
    "ZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3czRfcmVxdWVzdCJ9"
    "LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAi"
    "MjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9"
)
AWS_SIGNATURE = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
AWS_FIELDS = {
    "policy": AWS_POLICY,
    "x-amz-algorithm": "AWS4-HMAC-SHA256",
    "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request",
    "x-amz-date": "20151229T000000Z",
    "x-amz-signature": AWS_SIGNATURE,
}


class Store:
    """One credential."""

    def find(self, access_key: str) -> credentials.Credential | None:
        return CREDENTIAL if access_key == CREDENTIAL.access_key else None

    def user(self, user_id: str) -> credentials.User | None:
        return None

    def user_by_email(self, email: str) -> credentials.User | None:
        return None

    def is_principal(self, name: str) -> bool:
        return self.user(name) is not None


def _signer(fields: dict[str, str]) -> credentials.Credential | None:
    signatures = sigv4_signatures.Signatures(Store())
    return post_signature.signer(fields, signatures=signatures, region="us-east-1")


def _refused(fields: dict[str, str]) -> tuple[str, str]:
    with pytest.raises(s3_error.S3Error) as failure:
        _signer(fields)
    return failure.value.code, failure.value.extra.get("ArgumentName", "")


def _version_2(policy: str = "cG9saWN5") -> dict[str, str]:
    signature = hmac.digest(CREDENTIAL.secret_key.encode(), policy.encode(), "sha1")
    return {
        "policy": policy,
        "awsaccesskeyid": CREDENTIAL.access_key,
        "signature": base64.b64encode(signature).decode(),
    }


def test_the_example_of_aws_verifies() -> None:
    assert _signer(AWS_FIELDS) is CREDENTIAL
    policy = post_policy.parse(AWS_POLICY)
    assert len(policy.conditions) == 11


def test_what_botocore_signs_verifies() -> None:
    keys = boto_credentials.Credentials(CREDENTIAL.access_key, CREDENTIAL.secret_key)
    made: dict[str, typing.Any] = {}
    signers = (
        auth.S3SigV4PostAuth(keys, "s3", "us-east-1"),
        auth.HmacV1PostAuth(keys),
    )
    for signer in signers:
        request = awsrequest.AWSRequest("POST", "http://localhost/books")
        request.context["s3-presign-post-fields"] = made = {}
        request.context["s3-presign-post-policy"] = {"expiration": "x", "conditions": []}
        signer.add_auth(request)
        fields = {name.lower(): str(value) for name, value in made.items()}
        assert _signer(fields) is CREDENTIAL
        fields["policy"] = fields["policy"][:-4] + "AAAA"
        assert _refused(fields)[0] == "SignatureDoesNotMatch"


def test_a_signature_of_version_4_by_its_definition() -> None:
    day = datetime.date(2026, 11, 29).strftime("%Y%m%d")
    key = b"AWS4" + CREDENTIAL.secret_key.encode()
    for step in (day, "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    fields = {
        "policy": "cG9saWN5",
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{CREDENTIAL.access_key}/{day}/us-east-1/s3/aws4_request",
        "x-amz-date": f"{day}T120000Z",
        "x-amz-signature": hmac.new(key, b"cG9saWN5", hashlib.sha256).hexdigest(),
    }
    assert _signer(fields) is CREDENTIAL


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"x-amz-signature": "0" * 64}, ("SignatureDoesNotMatch", "")),
        ({"x-amz-signature": "ü"}, ("SignatureDoesNotMatch", "")),
        ({"x-amz-signature": ""}, ("InvalidArgument", "X-Amz-Signature")),
        ({"x-amz-algorithm": "AWS4-HMAC-SHA1"}, ("InvalidArgument", "X-Amz-Algorithm")),
        ({"x-amz-date": "20151230T000000Z"}, ("InvalidArgument", "X-Amz-Date")),
        ({"x-amz-date": "20151229T250000Z"}, ("InvalidArgument", "X-Amz-Date")),
        ({"x-amz-credential": "AKID"}, ("InvalidArgument", "")),
        ({"x-amz-credential": "A/20151229/us-east-1/s3/aws4_request"}, ("InvalidAccessKeyId", "")),
        (
            {"x-amz-credential": "A/20151229/eu-west-1/s3/aws4_request"},
            ("InvalidArgument", "X-Amz-Credential"),
        ),
        ({"awsaccesskeyid": "AKIAIOSFODNN7EXAMPLE"}, ("InvalidArgument", "AWSAccessKeyId")),
    ],
)
def test_forms_of_version_4_that_are_refused(
    changed: dict[str, str], refusal: tuple[str, str]
) -> None:
    assert _refused({**AWS_FIELDS, **changed}) == refusal


def test_each_field_of_a_signature_is_needed() -> None:
    for fields in (AWS_FIELDS, _version_2()):
        for name in fields:
            left = {other: value for other, value in fields.items() if other != name}
            code, argument = _refused(left)
            assert (code, argument.lower()) == ("InvalidArgument", name)


def test_forms_of_version_2_that_are_refused() -> None:
    assert _signer(_version_2()) is CREDENTIAL
    assert _refused({**_version_2(), "awsaccesskeyid": "foo"}) == ("InvalidAccessKeyId", "")
    assert _refused({**_version_2(), "policy": "eA=="}) == ("SignatureDoesNotMatch", "")
    assert _refused({**_version_2(), "signature": "ü"}) == ("SignatureDoesNotMatch", "")


def test_a_form_without_policy_and_signature_is_nobodys() -> None:
    assert _signer({"key": "k"}) is None
    assert _refused({"key": "k", "policy": ""}) == ("InvalidArgument", "AWSAccessKeyId")


def test_names_have_no_case_and_come_once() -> None:
    field = form_data.Field
    assert post_fields.by_name([field("kEy", "K"), field("POLICY", "P")]) == {
        "key": "K",
        "policy": "P",
    }
    with pytest.raises(s3_error.S3Error, match="more than one field named 'KEY'"):
        post_fields.by_name([field("key", "a"), field("KEY", "b")])


@pytest.mark.parametrize(
    ("key", "filename", "made"),
    [
        ("a", "x.txt", "a"),
        ("${filename}", "x.txt", "x.txt"),
        ("user/${filename}.bak", "x.txt", "user/x.txt.bak"),
        ("${filename}${filename}", "x", "xx"),
        ("${filename}", r"C:\Program Files\directory1\file.txt", "file.txt"),
        ("${filename}", "/home/me/file.txt", "file.txt"),
        ("user/${filename}", "", "user/"),
        ("${filename}", "${filename}", "${filename}"),
        ("$filename", "x", "$filename"),
        (r"\$foo.txt", "x", r"\$foo.txt"),
    ],
)
def test_keys(key: str, filename: str, made: str) -> None:
    assert post_fields.key_of({"key": key}, filename) == made


@pytest.mark.parametrize(
    ("fields", "filename", "code"),
    [
        ({}, "x", "InvalidArgument"),
        ({"key": ""}, "x", "InvalidArgument"),
        ({"key": "${filename}"}, "", "InvalidArgument"),
        ({"key": "${filename}"}, "folder/", "InvalidArgument"),
        ({"key": "a\0b"}, "x", "InvalidArgument"),
        ({"key": "k" * 1025}, "x", "KeyTooLongError"),
        ({"key": "ü" * 500 + "${filename}"}, "x" * 25, "KeyTooLongError"),
    ],
)
def test_keys_that_cannot_be(fields: dict[str, str], filename: str, code: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        post_fields.key_of(fields, filename)
    assert failure.value.code == code


def test_fields_stand_for_headers() -> None:
    fields = {
        **AWS_FIELDS,
        "key": "k",
        "acl": " private",
        "content-type": "text/plain",
        "x-amz-meta-a": "\tone two ",
        "x-amz-storage-class": "STANDARD",
        "success_action_status": "201",
        "tagging": "<Tagging/>",
        "host": "elsewhere",
        "x-ignore-b": "\r\n",
    }
    assert post_fields.headers_of(fields) == {
        "content-type": "text/plain",
        "x-amz-meta-a": "one two",
        "x-amz-storage-class": "STANDARD",
        "x-amz-acl": "private",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", "text/plain\r\nSet-Cookie: a=b"),
        ("x-amz-meta-a", "a\nb"),
        ("x-amz-meta-a", "a\x7f"),
        ("x-amz-meta-a b", "c"),
        ("x-amz-meta-ü", "c"),
        ("acl", "private\0"),
    ],
)
def test_what_no_header_holds_is_refused(name: str, value: str) -> None:
    with pytest.raises(s3_error.S3Error, match="no header can hold") as failure:
        post_fields.headers_of({name: value})
    assert failure.value.code == "InvalidArgument"


def test_statuses_of_success() -> None:
    wanted = {"": 204, "200": 200, "201": 201, "204": 204, "404": 204, "2010": 204, "x": 204}
    for text, status in wanted.items():
        assert post_fields.success_status({"success_action_status": text}) == status
    assert post_fields.success_status({}) == 204


@pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("http://a.test", "http://a.test?{told}"),
        ("https://a.test/x#top", "https://a.test/x?{told}#top"),
        ("http://a.test/?q=1", "http://a.test/?q=1&{told}"),
        (" http://ü.test/ä b ", "http://%C3%BC.test/%C3%A4%20b?{told}"),
        ("", None),
        ("/relative", None),
        ("javascript:alert(1)", None),
        ("ftp://a.test/", None),
        ("http://", None),
        ("http://[::1", None),
        ("http://a.test/\r\nSet-Cookie: a=b", None),
    ],
)
def test_urls_of_success(url: str, made: str | None, name: str) -> None:
    found = post_fields.success_url({name: url}, bucket="b", key="k/ü ", etag="e")
    told = "bucket=b&key=k%2F%C3%BC%20&etag=%22e%22"
    assert found == (None if made is None else made.format(told=told))


def test_the_newer_name_of_a_url_counts() -> None:
    both = {"success_action_redirect": "http://new.test", "redirect": "http://old.test"}
    found = post_fields.success_url(both, bucket="b", key="k", etag="e")
    assert found == "http://new.test?bucket=b&key=k&etag=%22e%22"
