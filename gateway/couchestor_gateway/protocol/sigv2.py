"""AWS Signature Version 2, for clients that know no other: HMAC-SHA1 over parts of a request.

It covers the method, the path, the ``x-amz-`` headers, three others and those names of the query
that ``SIGNED_NAMES`` lists, not the rest of the query, no other header and no body. So a
sub-resource that is not among those names is refused: a signature for the bucket would do for it.

Source: Amazon S3 Developer Guide, API version 2006-03-01, "Signing and authenticating REST
requests".
"""

from __future__ import annotations

import base64
import hmac
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import (
    request_identity,
    s3_error,
    sigv4_canonical,
    sigv4_claim,
    sigv4_signatures,
    timestamps,
)

SCHEME: Final = "AWS"
"""Of the Authorization header; also what conditions of policies call this version."""

SIGNED_NAMES: Final = frozenset(
    {
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory"),
        *("lifecycle", "location", "logging", "metrics", "notification", "object-lock"),
        *("partNumber", "policy", "replication", "requestPayment", "restore", "select"),
        *("select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads"),
        *("versionId", "versioning", "versions", "website"),
        *("response-cache-control", "response-content-disposition", "response-content-encoding"),
        *("response-content-language", "response-content-type", "response-expires"),
    }
)
"""Names of a query that are signed, by the clients that are left."""

MOVED_NAMES: Final = frozenset({"content-md5", "content-type"})
"""Beside ``x-amz-`` ones the headers that a presigned URL may carry in its query."""

_BLANKS: Final = " \t"
_EXPIRES_MAX: Final = 253402300799
"""Seconds since the epoch: the last one of the year 9999."""


def is_presigned(raw_query: str) -> bool:
    """Whether a query carries a signature of this version."""
    return "Signature=" in raw_query and "AWSAccessKeyId=" in raw_query


def by_header(
    signatures: sigv4_signatures.Signatures,
    *,
    method: str,
    resource: str,
    raw_query: str,
    authorization: str,
    values: dict[str, str],
    amz_names: list[str],
    now_seconds: float,
) -> request_identity.Identity:
    """Authenticate a request by its Authorization header, ``AWS access-key:signature``.

    Args:
        resource: Bucket and path as sent.
        values: Of the headers, as ``header_values`` gives them.
        amz_names: The names of its ``x-amz-`` headers in lower case.

    Raises:
        S3Error: InvalidArgument, AccessDenied (no date), RequestTimeTooSkewed,
            InvalidAccessKeyId, SignatureDoesNotMatch.
    """
    _, _, rest = authorization.partition(" ")
    access_key, colon, signature = rest.strip().rpartition(":")
    if not colon or not access_key or not signature or " " in rest.strip():
        raise s3_error.make(
            "InvalidArgument",
            "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
            ArgumentName="Authorization",
            ArgumentValue=authorization[:256],
        )
    is_amz_date = "x-amz-date" in values
    text = values["x-amz-date"] if is_amz_date else values.get("date", "")
    seconds = timestamps.parse_http_date(text)
    if seconds is None:
        seconds = timestamps.parse_amz_date(text)
    if seconds is None or seconds < 0:
        raise s3_error.make(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    credential = signatures.credential(access_key)
    if abs(now_seconds - seconds) > sigv4_claim.SKEW_SECONDS_MAX:
        raise s3_error.make(
            "RequestTimeTooSkewed",
            RequestTime=text,
            ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
            MaxAllowedSkewMilliseconds=str(sigv4_claim.SKEW_SECONDS_MAX * 1000),
        )
    date = "" if is_amz_date else text
    _check(credential, method, date, values, resource, raw_query, signature)
    return _identity(credential, values, amz_names, amz_date=timestamps.amz_date(seconds))


def by_query(
    signatures: sigv4_signatures.Signatures,
    *,
    method: str,
    resource: str,
    raw_query: str,
    values: dict[str, str],
    amz_names: list[str],
    now_seconds: float,
) -> request_identity.Identity:
    """Authenticate a presigned request. The arguments are those of ``by_header``.

    Raises:
        S3Error: AccessDenied (a parameter is missing or wrong, expired), InvalidAccessKeyId,
            SignatureDoesNotMatch.
    """
    query: dict[str, str] = {}
    for name, value in sigv4_canonical.parameters(raw_query):
        query.setdefault(name, value)
    access_key, signature = query.get("AWSAccessKeyId"), query.get("Signature")
    expires = query.get("Expires")
    if not access_key or not signature or not expires:
        raise s3_error.make(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId"
            " parameters",
        )
    if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
        raise s3_error.make(
            "AccessDenied", f"Invalid date (should be seconds since epoch): {expires[:64]}"
        )
    if now_seconds >= int(expires):
        raise s3_error.make(
            "AccessDenied",
            "Request has expired",
            Expires=timestamps.iso8601(int(expires) * 1_000_000_000),
            ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
        )
    if int(expires) > _EXPIRES_MAX:
        raise s3_error.make(
            "AccessDenied", f"Invalid date (should be seconds since epoch): {expires}"
        )
    credential = signatures.credential(access_key)
    # What comes as a header counts; else what the query has in its place, as it is acted upon.
    signed = dict(values)
    for name, value in query.items():
        lower = name.lower()
        if lower.startswith("x-amz-") or lower in MOVED_NAMES:
            signed.setdefault(lower, value.strip(_BLANKS))
    _check(credential, method, expires, signed, resource, raw_query, signature)
    return _identity(credential, signed, amz_names, amz_date="")


def header_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Values of headers by their names in lower case, without outer blanks, repeated ones joined.

    Blanks inside stay as they are, other than in version 4.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        lower, value = name.lower(), value.strip(_BLANKS)
        values[lower] = f"{values[lower]},{value}" if lower in values else value
    return values


def string_to_sign(method: str, date: str, values: Mapping[str, str], resource: str) -> str:
    """What a request is signed by.

    Args:
        date: Empty if ``x-amz-date`` says it; when the request ends, if it is presigned.
        values: Of the headers, as ``header_values`` gives them.
        resource: As ``canonical_resource`` gives it.
    """
    lines = [method, values.get("content-md5", ""), values.get("content-type", ""), date]
    lines += [f"{name}:{values[name]}" for name in sorted(values) if name.startswith("x-amz-")]
    lines.append(resource)
    return "\n".join(lines)


def canonical_resource(resource: str, raw_query: str) -> str:
    """Bucket and path as sent, with the names of the query that are signed, in order."""
    signed: list[tuple[str, str]] = []
    for item in raw_query.split("&"):
        name, separator, value = item.partition("=")
        name = _decoded(name)
        if name in SIGNED_NAMES:
            signed.append((name, f"{name}={_decoded(value)}" if separator else name))
    if not signed:
        return resource
    signed.sort(key=lambda item: item[0])
    return f"{resource}?{'&'.join(text for _, text in signed)}"


def require_covered(sub_resource: str) -> None:
    """Stop a request for a sub-resource that its signature says nothing about.

    Args:
        sub_resource: The one that the request's query names; empty for none.

    Raises:
        S3Error: InvalidRequest.
    """
    if sub_resource and sub_resource not in SIGNED_NAMES:
        raise s3_error.make(
            "InvalidRequest",
            f"A signature of version 2 does not cover {sub_resource}. Please use"
            f" {sigv4_claim.ALGORITHM} for it.",
        )


def _check(
    credential: credential_port.Credential,
    method: str,
    date: str,
    values: Mapping[str, str],
    resource: str,
    raw_query: str,
    signature: str,
) -> None:
    string = string_to_sign(method, date, values, canonical_resource(resource, raw_query))
    given = signature.encode("utf-8", "surrogateescape")
    if _is_signature(credential, string, given):
        return
    if resource.count("/") == 1 and len(resource) > 1:
        # SDKs sign a bucket's path with a slash at its end, and send it without one.
        slashed = canonical_resource(f"{resource}/", raw_query)
        if _is_signature(credential, string_to_sign(method, date, values, slashed), given):
            return
    raise s3_error.make(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=credential.access_key,
        StringToSign=string,
        SignatureProvided=signature,
    )


def _is_signature(credential: credential_port.Credential, string: str, given: bytes) -> bool:
    """Whether it signs the text; compared in constant time."""
    text = string.encode("utf-8", "surrogateescape")
    digest = hmac.digest(credential.secret_key.encode(), text, "sha1")
    return hmac.compare_digest(base64.b64encode(digest), given)


def _identity(
    credential: credential_port.Credential,
    values: Mapping[str, str],
    amz_names: Sequence[str],
    *,
    amz_date: str,
) -> request_identity.Identity:
    content_sha256 = values.get("x-amz-content-sha256", request_identity.UNSIGNED_PAYLOAD)
    kind = request_identity.payload_kind(content_sha256)
    if kind in request_identity.SIGNED_CHUNKS:
        raise s3_error.make(
            "InvalidRequest", "Chunks are signed by version 4, not in a request of version 2."
        )
    return request_identity.Identity(
        credential=credential,
        payload=kind,
        payload_sha256=request_identity.signed_sha256(kind, content_sha256),
        amz_date=amz_date,
        amz_names=amz_names,
        is_version_2=True,
    )


def _decoded(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    raw = text.replace("+", " ").encode("utf-8", "surrogateescape")
    return urllib.parse.unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
