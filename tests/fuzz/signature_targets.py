"""Who signed a request: headers, presigned URLs, forms, and requests to administer a node."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from tests.fuzz import target

from couchestor_bench import signing
from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import (
    admin_signature,
    form_data,
    header_syntax,
    post_fields,
    post_policy,
    post_signature,
    s3_error,
    sigv4,
    sigv4_signatures,
)

KEYS: Final = signing.Credentials(access_key="AKID", secret_key="s/ecret")
MOMENT: Final = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.UTC)
NOW_SECONDS: Final = MOMENT.timestamp()


class OneKey:
    """A credential store of one key."""

    def find(self, access_key: str) -> credentials.Credential | None:
        if access_key != KEYS.access_key:
            return None
        return credentials.Credential(
            access_key=KEYS.access_key, secret_key=KEYS.secret_key, owner="ada", display_name="ada"
        )

    def user(self, user_id: str) -> credentials.User | None:
        return None

    def user_by_email(self, email: str) -> credentials.User | None:
        return None

    def is_principal(self, name: str) -> bool:
        return name == "ada"


def _verified(method: str, raw: str, headers: sigv4.Headers) -> bool:
    """Whether a request is signed; anonymous ones are not."""
    raw_path, _, raw_query = raw.partition("?")
    verifier = sigv4.Verifier(OneKey(), KEYS.region)
    identity = verifier.verify(
        method=method,
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers,
        now_seconds=NOW_SECONDS,
    )
    return identity.credential is not None


def _head(data: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """Method, target and headers, names as they came; a name may come more than once."""
    first, *lines = data.split(b"\n")
    method, _, raw = first.partition(b" ")
    pairs = [line.partition(b":")[::2] for line in lines]
    return (
        target.text(method),
        target.text(raw),
        [(target.text(name), target.text(value)) for name, value in pairs],
    )


def run_requests(data: bytes) -> None:
    """A request's head, signed by its headers, by its query, or not."""
    method, raw, headers = _head(data)
    with target.s3_refusals():
        _verified(method, raw, headers)


def run_signing(data: bytes) -> None:
    """What is signed verifies, however it is written; with another signature it does not.

    The first line is a path, the others are ``name=value`` of the query or ``name: value``.
    """
    first, *lines = data.decode("utf-8", "replace").split("\n")
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator and header_syntax.is_name(name):
            headers[name] = value
        elif "=" in line and not line.startswith("X-Amz-"):
            name, _, query[name] = line.partition("=")
    for name in ("host", "authorization", "x-amz-date", "x-amz-content-sha256"):
        headers = {each: value for each, value in headers.items() if each.lower() != name}
    path = f"/{first}"
    signed = signing.sign_headers(
        KEYS, "GET", host="h", path=path, query=query, headers=headers, now=MOMENT
    )
    raw = f"{signing.encode_path(path)}?{signing.encode_query(query)}"
    assert _verified("GET", raw, signed)
    url = signing.presign(KEYS, "GET", host="h", path=path, query=query, now=MOMENT)
    assert _verified("GET", url, {"host": "h"})
    signed["authorization"] = _with_other_signature(signed["authorization"])
    for wrong_url, wrong_headers in (
        (raw, signed),
        (_with_other_signature(url), {"host": "h"}),
        (url.replace("/", "/x", 1), {"host": "h"}),
    ):
        code = ""
        try:
            _verified("GET", wrong_url, wrong_headers)
        except s3_error.S3Error as exc:
            code = exc.code
        assert code == "SignatureDoesNotMatch", wrong_url


def _with_other_signature(signed: str) -> str:
    before, name, after = signed.rpartition("Signature=")
    return f"{before}{name}{'1' if after[0] == '0' else '0'}{after[1:]}"


def run_admin_requests(data: bytes) -> None:
    """A request to administer a node: refused with a reason, or let in."""
    method, raw, headers = _head(data)
    refusal = admin_signature.refusal(
        method,
        raw,
        {name.lower(): value for name, value in headers},
        access_key=KEYS.access_key,
        secret_key=KEYS.secret_key,
        now_seconds=NOW_SECONDS,
    )
    assert refusal is None or refusal.isascii()
    made = admin_signature.headers_for(
        method,
        raw,
        data,
        host="h",
        access_key=KEYS.access_key,
        secret_key=KEYS.secret_key,
        now_seconds=int(NOW_SECONDS),
    )
    for clock_seconds, is_in in ((NOW_SECONDS, True), (NOW_SECONDS + 301, False)):
        told = admin_signature.refusal(
            method,
            raw,
            made,
            access_key=KEYS.access_key,
            secret_key=KEYS.secret_key,
            now_seconds=clock_seconds,
        )
        assert (told is None) is is_in, told


def run_form_signatures(data: bytes) -> None:
    """The fields of a form, ``name=value`` a line: who signed it, and what it asks for."""
    lines = data.decode("utf-8", "replace").split("\n")
    fields = [form_data.Field(*line.partition("=")[::2]) for line in lines]
    with target.s3_refusals():
        named = post_fields.by_name(fields)
        headers = post_fields.headers_of(named)
        assert all(header_syntax.is_value(value) for value in headers.values())
        with target.s3_refusals():
            key = post_fields.key_of(named, "dir\\name")
            url = post_fields.success_url(named, bucket="b", key=key, etag="e")
            assert url is None or (url.isascii() and header_syntax.is_value(url))
        signatures = sigv4_signatures.Signatures(OneKey())
        signer = post_signature.signer(named, signatures=signatures, region=KEYS.region)
        if signer is not None:
            post_policy.parse(named["policy"]).check(named, now_ns=int(NOW_SECONDS) * 10**9)


def _seed(lines: Sequence[str]) -> bytes:
    return "\n".join(lines).encode()


def _as_head(method: str, raw: str, headers: dict[str, str]) -> bytes:
    return _seed([f"{method} {raw}", *(f"{name}:{value}" for name, value in headers.items())])


_SIGNED: Final = signing.sign_headers(
    KEYS,
    "GET",
    host="h",
    path="/b/a b",
    query={"prefix": "a"},
    headers={"x-amz-a": "1"},
    now=MOMENT,
)
_PRESIGNED: Final = signing.presign(KEYS, "GET", host="h", path="/b/k", now=MOMENT)
_ADMIN: Final = admin_signature.headers_for(
    "POST",
    "/v1/tenants",
    b"{}",
    host="h",
    access_key=KEYS.access_key,
    secret_key=KEYS.secret_key,
    now_seconds=int(NOW_SECONDS),
)
_WORDS: Final = (
    b"AWS4-HMAC-SHA256 ",
    b"AWS ",
    b"Credential=",
    b"SignedHeaders=",
    b"Signature=",
    b"/20261129/us-east-1/s3/aws4_request",
    b"authorization:",
    b"x-amz-date:",
    b"x-amz-content-sha256:",
    b"X-Amz-Algorithm=AWS4-HMAC-SHA256&",
    b"X-Amz-Expires=",
    b"UNSIGNED-PAYLOAD",
    b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    b"AWSAccessKeyId=AKID&",
    b"host;",
    b"%2F",
    b"%",
    b"+",
    b", ",
    b"; ",
    b"  ",
    b"\xff",
    b"date: Sun, 29 Nov 2026 12:00:00 GMT",
)

TARGETS: Final = (
    target.Target(
        name="requests",
        run=run_requests,
        seeds=(
            _as_head("GET", "/b/a%20b?prefix=a", _SIGNED),
            _as_head("GET", _PRESIGNED, {"host": "h"}),
            b"GET /b/k?AWSAccessKeyId=AKID&Signature=x&Expires=9",
            b"GET /b/k\nauthorization: AWS AKID:signature\ndate: Sun, 29 Nov 2026 12:00:00 GMT",
            _as_head(
                "GET",
                "/b/k",
                {
                    "authorization": _SIGNED["authorization"],
                    "date": "Oct 2 0:0 0-6666000000000065",
                },
            ),
            b"GET /b/k\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ),
        tokens=_WORDS,
    ),
    target.Target(
        name="signing",
        run=run_signing,
        seeds=(b"b/a b\nprefix=a b+c\nx-amz-meta-a:  1  2", "b/é%2F~*//\nü=\n=x".encode()),
        tokens=(b"\n", b"=", b":", b"%2F", b"+", b"  ", b"//", b"..", b"\xc3\xa9", b"x-amz-a:"),
    ),
    target.Target(
        name="admin requests",
        run=run_admin_requests,
        seeds=(_as_head("POST", "/v1/tenants", _ADMIN),),
        tokens=_WORDS,
    ),
    target.Target(
        name="form signatures",
        run=run_form_signatures,
        seeds=(
            b"key=a/${filename}\nacl=private\nAWSAccessKeyId=AKID\npolicy=e30=\nSignature=x",
            b"key=k\nx-amz-algorithm=AWS4-HMAC-SHA256\nx-amz-date=20261129T120000Z\n"
            b"x-amz-credential=AKID/20261129/us-east-1/s3/aws4_request\npolicy=e30=\n"
            b"x-amz-signature=00",
            b"key=k\nsuccess_action_redirect=http://h/?a=b\nContent-Type=text/plain",
        ),
        tokens=(*_WORDS, b"key=", b"${filename}", b"policy=", b"redirect=http://[", b"\n", b"="),
    ),
)
