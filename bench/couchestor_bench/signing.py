"""AWS Signature Version 4, written apart from the gateway's so that each proves the other.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-._~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key, its secret and the region that signatures name."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"


def encode_path(path: str) -> str:
    """The path as S3 signs it and as it stands on the request line."""
    return urllib.parse.quote(path, safe="/" + _UNRESERVED)


def encode_query(query: Mapping[str, str]) -> str:
    """The query sorted and encoded as S3 signs it."""
    quote = functools.partial(urllib.parse.quote, safe=_UNRESERVED)
    return "&".join(f"{name}={value}" for name, value in _pairs(query, quote))


def sign_headers(
    credentials: Credentials,
    method: str,
    *,
    host: str,
    path: str,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    payload_sha256: str = UNSIGNED_PAYLOAD,
    now: datetime.datetime | None = None,
) -> dict[str, str]:
    """Headers to send: those given, Host, the date, the payload's hash and the signature.

    Args:
        path: Not encoded; starts with a slash.
        query: Not encoded.
        headers: All of them are signed.
        payload_sha256: Hexadecimal, or ``UNSIGNED_PAYLOAD``.
    """
    moment = (now or datetime.datetime.now(datetime.UTC)).strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
    sent |= {"host": host, "x-amz-content-sha256": payload_sha256, "x-amz-date": moment}
    names = ";".join(sorted(sent))
    signature = _signature(
        credentials,
        moment,
        canonical=_canonical(method, path, query or {}, headers=sent, payload=payload_sha256),
    )
    scope = f"{moment[:8]}/{credentials.region}/s3/aws4_request"
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent


def presign(
    credentials: Credentials,
    method: str,
    *,
    host: str,
    path: str,
    query: Mapping[str, str] | None = None,
    expires_seconds: int = 3600,
    now: datetime.datetime | None = None,
) -> str:
    """Path and query of a presigned URL; the payload stays unsigned."""
    moment = (now or datetime.datetime.now(datetime.UTC)).strftime("%Y%m%dT%H%M%SZ")
    asked = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": (
            f"{credentials.access_key}/{moment[:8]}/{credentials.region}/s3/aws4_request"
        ),
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": "host",
    }
    canonical = _canonical(method, path, asked, headers={"host": host}, payload=UNSIGNED_PAYLOAD)
    asked["X-Amz-Signature"] = _signature(credentials, moment, canonical=canonical)
    return f"{encode_path(path)}?{encode_query(asked)}"


def _pairs(query: Mapping[str, str], quote: functools.partial[str]) -> list[tuple[str, str]]:
    return sorted((quote(name), quote(value)) for name, value in query.items())


def _canonical(
    method: str,
    path: str,
    query: Mapping[str, str],
    *,
    headers: Mapping[str, str],
    payload: str,
) -> str:
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    names = ";".join(sorted(headers))
    return f"{method}\n{encode_path(path)}\n{encode_query(query)}\n{lines}\n{names}\n{payload}"


def _signature(credentials: Credentials, moment: str, *, canonical: str) -> str:
    scope = f"{moment[:8]}/{credentials.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"
    key = _signing_key(credentials, moment[:8])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@functools.lru_cache(maxsize=64)
def _signing_key(credentials: Credentials, day: str) -> bytes:
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, credentials.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
