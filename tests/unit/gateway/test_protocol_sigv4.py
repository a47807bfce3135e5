"""Signatures made by botocore must verify; anything changed afterwards must not."""

from __future__ import annotations

import time
import urllib.parse

import pytest
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials

from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import request_identity, s3_error, sigv4

CREDENTIAL = credentials.Credential(
    access_key="AKIDEXAMPLE", secret_key="s/ecret+key", owner="alice", display_name="alice"
)
REGION = "us-east-1"
URLS = [
    "http://localhost:8000/bucket/key",
    "http://localhost:8000/",
    "http://localhost:8000/bucket/a%20b/%C3%A9%2B~*'()!/..//x",
    "http://localhost:8000/bucket?list-type=2&prefix=a%2Fb%20c&delimiter=%2F&empty=",
    "http://localhost:8000/bucket/key?uploads",
]


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


def _verify(
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    *,
    now: float | None = None,
) -> request_identity.Identity:
    parts = urllib.parse.urlsplit(url)
    return sigv4.Verifier(Store(), REGION).verify(
        method=method,
        raw_path=parts.path,
        raw_query=parts.query,
        headers=headers,
        now_seconds=time.time() if now is None else now,
    )


def _signed(
    url: str, method: str = "GET", headers: dict[str, str] | None = None, region: str = REGION
) -> list[tuple[str, str]]:
    request = awsrequest.AWSRequest(method, url, headers=headers or {}, data=b"body")
    keys = boto_credentials.Credentials(CREDENTIAL.access_key, CREDENTIAL.secret_key)
    auth.S3SigV4Auth(keys, "s3", region).add_auth(request)
    host = urllib.parse.urlsplit(url).netloc
    return [("Host", host), *((str(n), str(v)) for n, v in request.headers.items())]


def _presigned(url: str, expires: int = 60) -> str:
    request = awsrequest.AWSRequest("GET", url)
    keys = boto_credentials.Credentials(CREDENTIAL.access_key, CREDENTIAL.secret_key)
    auth.S3SigV4QueryAuth(keys, "s3", REGION, expires=expires).add_auth(request)
    return str(request.url)


def _replace(headers: list[tuple[str, str]], name: str, old: str, new: str) -> None:
    for index, (found, value) in enumerate(headers):
        if found.lower() == name:
            assert old in value
            headers[index] = (found, value.replace(old, new, 1))
            return
    raise AssertionError(name)


@pytest.mark.parametrize("url", URLS)
def test_header_signature(url: str) -> None:
    headers = _signed(url, headers={"x-amz-meta-a": "  one   two ", "Content-Type": "text/a"})
    identity = _verify("GET", url, headers)
    assert identity.credential is CREDENTIAL
    assert identity.payload in (
        request_identity.PayloadKind.SIGNED_SHA256,
        request_identity.PayloadKind.UNSIGNED,
    )


@pytest.mark.parametrize("url", URLS)
def test_presigned(url: str) -> None:
    signed = _presigned(url)
    headers = [("Host", "localhost:8000")]
    identity = _verify("GET", signed, headers)
    assert identity.credential is CREDENTIAL
    assert identity.payload is request_identity.PayloadKind.UNSIGNED
    with pytest.raises(s3_error.S3Error, match="expired"):
        _verify("GET", signed, headers, now=time.time() + 62)
    with pytest.raises(s3_error.S3Error, match="not yet"):
        _verify("GET", signed, headers, now=time.time() - 1000)
    with pytest.raises(s3_error.S3Error, match="does not match"):
        _verify("PUT", signed, headers)
    with pytest.raises(s3_error.S3Error, match="does not match"):
        _verify("GET", signed + "&versionId=1", headers)


def test_expires_bounds() -> None:
    headers = [("Host", "localhost:8000")]
    assert _verify("GET", _presigned(URLS[0], 604800), headers).credential is CREDENTIAL
    for expires in (604801, -1):
        with pytest.raises(s3_error.S3Error) as caught:
            _verify("GET", _presigned(URLS[0], expires), headers)
        assert caught.value.code == "AuthorizationQueryParametersError"
    with pytest.raises(s3_error.S3Error, match="expired"):
        _verify("GET", _presigned(URLS[0], 0), headers)


def test_a_date_header_of_no_moment_is_refused() -> None:
    headers = [pair for pair in _signed(URLS[0]) if pair[0] not in ("X-Amz-Date", "Date")]
    headers.append(("Date", "Oct 2 0:0 0-6666000000000065"))
    with pytest.raises(s3_error.S3Error) as caught:
        _verify("GET", URLS[0], headers)
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


def test_date_header_instead_of_amz_date() -> None:
    headers = _signed(URLS[0], headers={"Date": "x"})
    assert "X-Amz-Date" not in dict(headers)
    assert _verify("GET", URLS[0], headers).credential is CREDENTIAL


def test_odd_encodings_of_one_path_verify() -> None:
    headers = _signed("http://localhost:8000/bucket/a/b%C3%A9")
    # A client's proxy may change the case of hexadecimal digits, or encode more than needed.
    assert _verify("GET", "http://localhost:8000/%62ucket/a/b%c3%a9", headers).credential


def test_tampering_fails() -> None:
    url = URLS[3]

    def code(method: str, target: str, headers: list[tuple[str, str]]) -> str:
        with pytest.raises(s3_error.S3Error) as caught:
            _verify(method, target, headers)
        return caught.value.code

    headers = _signed(url, headers={"x-amz-acl": "private"})
    assert code("PUT", url, headers) == "SignatureDoesNotMatch"
    assert code("GET", url + "x", headers) == "SignatureDoesNotMatch"
    assert code("GET", url.replace("bucket", "bucke"), headers) == "SignatureDoesNotMatch"
    for name, old, new in (
        ("host", "8000", "8001"),
        ("x-amz-acl", "private", "public-read"),
        ("authorization", "Signature=", "Signature=0"),
    ):
        changed = list(headers)
        _replace(changed, name, old, new)
        assert code("GET", url, changed) == "SignatureDoesNotMatch"
    assert code("GET", url, [*headers, ("x-amz-tagging", "a=b")]) == "AccessDenied"
    for old, new, wanted in (
        ("AKIDEXAMPLE", "OTHER", "InvalidAccessKeyId"),
        ("aws4_request", "aws4", "AuthorizationHeaderMalformed"),
        ("SignedHeaders=host;", "SignedHeaders=", "AccessDenied"),
        (REGION, "eu-west-1", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 ", "AWS ", "InvalidRequest"),
        ("Credential=", "Nothing=", "AuthorizationHeaderMalformed"),
    ):
        changed = list(headers)
        _replace(changed, "authorization", old, new)
        assert code("GET", url, changed) == wanted


def test_mismatch_explains_itself() -> None:
    headers = _signed(URLS[0])
    with pytest.raises(s3_error.S3Error) as caught:
        _verify("HEAD", URLS[0], headers)
    extra = caught.value.extra
    assert extra["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert extra["CanonicalRequest"].startswith("HEAD\n/bucket/key\n\n")


def test_clock_skew() -> None:
    headers = _signed(URLS[0])
    assert _verify("GET", URLS[0], headers, now=time.time() + 890).credential
    for drift in (-905, 905):
        with pytest.raises(s3_error.S3Error) as caught:
            _verify("GET", URLS[0], headers, now=time.time() + drift)
        assert caught.value.code == "RequestTimeTooSkewed"


def test_anonymous_and_both() -> None:
    host = [("Host", "localhost:8000")]
    assert _verify("GET", URLS[0], host).credential is None
    with pytest.raises(s3_error.S3Error, match="Only one auth"):
        _verify("GET", _presigned(URLS[0]), [*host, ("Authorization", "x")])
    for authorization in ("", "\x07", "Basic abc", "é"):
        with pytest.raises(s3_error.S3Error) as caught:
            _verify("GET", URLS[0], [*host, ("Authorization", authorization)])
        assert caught.value.status == 403
