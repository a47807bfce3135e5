"""Signatures of version 2 made by botocore must verify; anything changed afterwards must not."""

from __future__ import annotations

import string
import time
import urllib.parse
from collections.abc import Iterable

import hypothesis
import pytest
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials
from hypothesis import strategies as st

from couchestor_gateway.edge import presigned_headers, query_names
from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import request_identity, s3_error, sigv2, sigv4

CREDENTIAL = credentials.Credential(
    access_key="AKIDEXAMPLE", secret_key="s/ecret+key", owner="alice", display_name="alice"
)
_BOTO = boto_credentials.Credentials(CREDENTIAL.access_key, CREDENTIAL.secret_key)
_HOST = "http://localhost:8000"
_PLAIN = f"{_HOST}/bucket/key"


class Store:
    """One credential."""

    def find(self, access_key: str) -> credentials.Credential | None:
        return CREDENTIAL if access_key == CREDENTIAL.access_key else None

    def user(self, user_id: str) -> credentials.User | None:
        return None

    def user_by_email(self, email: str) -> credentials.User | None:
        return None

    def is_principal(self, name: str) -> bool:
        return False


Headers = list[tuple[str, str]]


def _verify(
    method: str,
    url: str,
    headers: Headers,
    *,
    now: float | None = None,
    host_bucket: str = "",
    is_on: bool = True,
) -> request_identity.Identity:
    parts = urllib.parse.urlsplit(url)
    return sigv4.Verifier(Store(), "us-east-1", takes_version_2=is_on).verify(
        method=method,
        raw_path=parts.path,
        raw_query=parts.query,
        headers=headers,
        now_seconds=time.time() if now is None else now,
        host_bucket=host_bucket,
    )


def _code(method: str, url: str, headers: Headers, **more: float) -> str:
    with pytest.raises(s3_error.S3Error) as failure:
        _verify(method, url, headers, now=more.get("now"))
    return failure.value.code


def _signed(
    url: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), auth_path: str = ""
) -> Headers:
    request = awsrequest.AWSRequest(method=method, url=url, auth_path=auth_path or None)
    for name, value in headers:
        request.headers[name] = value
    auth.HmacV1Auth(_BOTO).add_auth(request)
    return [(name, str(value)) for name, value in request.headers.items()]


def _presigned(
    url: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), expires: int = 60
) -> str:
    request = awsrequest.AWSRequest(method=method, url=url)
    for name, value in headers:
        request.headers[name] = value
    auth.HmacV1QueryAuth(_BOTO, expires=expires).add_auth(request)
    return str(request.url)


_SEGMENT = st.text(string.ascii_letters + string.digits + "-._~ %&=+?#é😀", min_size=1, max_size=8)
_VALUES = st.text(string.ascii_letters + " ,;/=+é", max_size=8)
_NAMES = st.sampled_from(
    [
        *sorted(sigv2.SIGNED_NAMES),
        *("prefix", "max-keys", "publicAccessBlock", "aclx", ""),
    ]
)
_URLS = st.builds(
    lambda path, query: (
        _HOST
        + "".join(f"/{urllib.parse.quote(segment, safe='-._~')}" for segment in path)
        + ("?" if query else "")
        + "&".join(
            name if value is None else f"{name}={urllib.parse.quote(value, safe='')}"
            for name, value in query
        )
    ),
    st.lists(_SEGMENT, max_size=3).map(lambda segments: segments or [""]),
    # Of two of a name botocore sorts neither, nor does anything else.
    st.lists(st.tuples(_NAMES, st.none() | _VALUES), max_size=4, unique_by=lambda item: item[0]),
)
_HEADER_VALUES = st.text(string.ascii_letters + "  ,:;", max_size=12)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("Content-MD5", "Content-Type", "x-amz-acl", "X-Amz-Meta-A", "x-amz-meta-b"),
                *("Range", "If-Match", "x-amzn", "X-Other"),
            ]
        ),
        _HEADER_VALUES,
    ),
    max_size=5,
    unique_by=lambda item: item[0],
)
_METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"])


@hypothesis.given(_METHODS, _URLS, _HEADERS)
def test_what_botocore_signs_is_right(method: str, url: str, headers: Headers) -> None:
    identity = _verify(method, url, _signed(url, method, headers))
    assert identity.credential is CREDENTIAL
    assert identity.is_version_2
    assert identity.payload is request_identity.PayloadKind.UNSIGNED


@hypothesis.given(_METHODS, _URLS, _HEADERS)
def test_what_botocore_presigns_is_right_with_and_without_its_headers(
    method: str, url: str, headers: Headers
) -> None:
    presigned = _presigned(url, method, headers)
    assert _verify(method, presigned, headers).credential is CREDENTIAL
    # The headers are in the URL, too.
    assert _verify(method, presigned, []).credential is CREDENTIAL


@hypothesis.given(_METHODS, _URLS, _HEADERS, st.data())
def test_what_was_changed_afterwards_is_wrong(
    method: str, url: str, headers: Headers, data: st.DataObject
) -> None:
    signed = _signed(url, method, headers)
    other = data.draw(_METHODS.filter(lambda each: each != method))
    assert _code(other, url, signed) == "SignatureDoesNotMatch"
    path, _, query = url.partition("?")
    assert _code(method, f"{path}x?{query}", signed) == "SignatureDoesNotMatch"
    assert _code(method, f"{path}?versions&{query}", signed) == "SignatureDoesNotMatch"
    more = [*signed, ("x-amz-meta-new", "1")]
    assert _code(method, url, more) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("style", "url", "host_bucket"),
    [
        ("/books/", "http://books.s3.local/", "books"),
        ("/books/a%20b", "http://books.s3.local/a%20b", "books"),
        # As botocore signs what it sends to a bucket by its path.
        ("/books/", f"{_HOST}/books", ""),
        ("/books/", f"{_HOST}/books?acl", ""),
    ],
)
def test_a_bucket_that_the_host_names_is_signed(style: str, url: str, host_bucket: str) -> None:
    signed = _signed(url, auth_path=style)
    assert _verify("GET", url, signed, host_bucket=host_bucket).credential is CREDENTIAL
    with pytest.raises(s3_error.S3Error, match="does not match"):
        _verify("GET", url, signed, host_bucket="other")


def test_the_developer_guides_examples() -> None:
    """Amazon S3 Developer Guide, "Signing and authenticating REST requests", its examples."""
    values = sigv2.header_values(
        [
            ("X-Amz-Acl", "public-read"),
            ("content-type", "application/x-download"),
            ("Content-MD5", "4gJE4saaMU4BqNR0kLY+lw=="),
            ("X-Amz-Meta-ReviewedBy", "joe@johnsmith.net"),
            ("X-Amz-Meta-ReviewedBy", "jane@johnsmith.net"),
            ("X-Amz-Meta-FileChecksum", "0x02661779"),
            ("X-Amz-Meta-ChecksumAlgorithm", "crc32"),
        ]
    )
    assert sigv2.string_to_sign(
        "PUT", "Tue, 27 Mar 2007 21:06:08 +0000", values, "/static.johnsmith.net/db-backup.dat.gz"
    ) == (
        "PUT\n4gJE4saaMU4BqNR0kLY+lw==\napplication/x-download\nTue, 27 Mar 2007 21:06:08 +0000\n"
        "x-amz-acl:public-read\nx-amz-meta-checksumalgorithm:crc32\n"
        "x-amz-meta-filechecksum:0x02661779\n"
        "x-amz-meta-reviewedby:joe@johnsmith.net,jane@johnsmith.net\n"
        "/static.johnsmith.net/db-backup.dat.gz"
    )
    assert sigv2.canonical_resource("/johnsmith/", "prefix=photos&max-keys=50&acl") == (
        "/johnsmith/?acl"
    )


@pytest.mark.parametrize(
    "authorization", ["AWS HAHAHA", "AWS ", "AWS :x", "AWS AKIDEXAMPLE:", "AWS a:b c"]
)
def test_a_header_that_is_none(authorization: str) -> None:
    assert _code("GET", _PLAIN, [("Authorization", authorization)]) == "InvalidArgument"


@pytest.mark.parametrize(
    ("dates", "code"),
    [
        ([], "AccessDenied"),
        ([("x-amz-date", "")], "AccessDenied"),
        ([("x-amz-date", "Bad Date")], "AccessDenied"),
        ([("x-amz-date", "Tue, 07 Jul 1950 21:53:04 GMT")], "AccessDenied"),
        ([("x-amz-date", "Tue, 07 Jul 2010 21:53:04 GMT")], "RequestTimeTooSkewed"),
        ([("x-amz-date", "Tue, 07 Jul 9999 21:53:04 GMT")], "RequestTimeTooSkewed"),
        ([("x-amz-date", "20100707T215304Z")], "RequestTimeTooSkewed"),
        # What stands in x-amz-date counts.
        ([("x-amz-date", ""), ("Date", "Sun, 29 Nov 2026 12:00:00 GMT")], "AccessDenied"),
    ],
)
def test_a_request_has_a_date_of_now(dates: Headers, code: str) -> None:
    headers = [("Authorization", "AWS AKIDEXAMPLE:c2lnbmF0dXJl"), *dates]
    assert _code("GET", _PLAIN, headers) == code


def test_x_amz_date_stands_for_the_date() -> None:
    signed = _signed(_PLAIN)
    date = dict(signed)["Date"]
    text = sigv2.string_to_sign("GET", "", {"x-amz-date": date}, "/bucket/key")
    signature = auth.HmacV1Auth(_BOTO).sign_string(text)
    headers = [("Authorization", f"AWS AKIDEXAMPLE:{signature}"), ("x-amz-date", date)]
    assert _verify("GET", _PLAIN, [*headers, ("Date", "whatever")]).amz_date != ""


def test_a_clock_may_be_a_quarter_of_an_hour_off() -> None:
    signed = _signed(_PLAIN)
    now = time.time()
    for off in (-890, 890):
        assert _verify("GET", _PLAIN, signed, now=now + off).credential is CREDENTIAL
    for off in (-910, 910):
        assert _code("GET", _PLAIN, signed, now=now + off) == "RequestTimeTooSkewed"


def test_a_url_ends() -> None:
    url = _presigned(_PLAIN, expires=60)
    now = time.time()
    assert _verify("GET", url, [], now=now + 58).credential is CREDENTIAL
    assert _code("GET", url, [], now=now + 61) == "AccessDenied"
    for change in ("Expires=x", "Expires=-1", "Expires=", f"Expires={'9' * 30}"):
        head, _, tail = url.partition("Expires=")
        changed = f"{head}{change}&{tail.partition('&')[2]}"
        assert _code("GET", changed, []) == "AccessDenied"
    later = url.replace("Expires=", "Expires=1")
    assert _code("GET", later, []) == "SignatureDoesNotMatch"


def test_a_url_is_no_header_as_well() -> None:
    assert _code("GET", _presigned(_PLAIN), _signed(_PLAIN)) == "InvalidArgument"


def test_whom_nobody_knows() -> None:
    unknown = [("Authorization", "AWS NOBODY:c2ln"), ("Date", dict(_signed(_PLAIN))["Date"])]
    assert _code("GET", _PLAIN, unknown) == "InvalidAccessKeyId"


def test_chunks_are_not_signed_so() -> None:
    headers = [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]
    assert _code("PUT", _PLAIN, _signed(_PLAIN, "PUT", headers)) == "InvalidRequest"


def test_switched_off_it_is_refused_by_name() -> None:
    for url, headers in ((_PLAIN, _signed(_PLAIN)), (_presigned(_PLAIN), [])):
        with pytest.raises(s3_error.S3Error, match="Please use AWS4-HMAC-SHA256") as failure:
            _verify("GET", url, headers, is_on=False)
        assert failure.value.code == "InvalidRequest"


@pytest.mark.parametrize("name", sorted(query_names.SUB_RESOURCES))
def test_a_sub_resource_is_covered_or_refused(name: str) -> None:
    if sigv2.canonical_resource("/bucket", name) == f"/bucket?{name}":
        sigv2.require_covered(name)
        return
    with pytest.raises(s3_error.S3Error, match=f"does not cover {name}") as failure:
        sigv2.require_covered(name)
    assert failure.value.code == "InvalidRequest"


def test_a_name_that_is_written_otherwise_is_covered_as_well() -> None:
    assert sigv2.canonical_resource("/b", "%61cl&version%49d=a%20b") == "/b?acl&versionId=a b"


def test_headers_in_a_url_are_acted_upon() -> None:
    url = _presigned(_PLAIN, "PUT", [("x-amz-meta-a", "1"), ("Content-Type", "text/x")])
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    both = presigned_headers.merged({}, query, also=sigv2.MOVED_NAMES)
    assert {name.lower(): value for name, value in both.items()} == {
        "x-amz-meta-a": "1",
        "content-type": "text/x",
    }
