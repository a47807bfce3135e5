"""Requests that carry their signature in the query: presigned URLs."""

from __future__ import annotations

from couchestor_gateway.protocol import (
    request_identity,
    s3_error,
    sigv4_canonical,
    sigv4_claim,
    sigv4_signatures,
    timestamps,
)


def verify(
    signatures: sigv4_signatures.Signatures,
    region: str,
    *,
    method: str,
    raw_path: str,
    parameters: list[tuple[str, str]],
    query: dict[str, str],
    values: dict[str, str],
    amz_names: list[str],
    now_seconds: float,
) -> request_identity.Identity:
    """Authenticate a presigned request.

    Args:
        parameters: Of the query, decoded, in order.
        query: The same by name.
        values: Of the headers, trimmed, by their names in lower case.
        amz_names: The names of its ``x-amz-`` headers in lower case.

    Raises:
        S3Error: AuthorizationQueryParametersError, AccessDenied (expired, headers not signed),
            InvalidAccessKeyId, SignatureDoesNotMatch.
    """
    wanted = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
    if any(not query.get(f"X-Amz-{name}") for name in wanted):
        raise s3_error.make(
            "AuthorizationQueryParametersError",
            "Query-string authentication version 4 requires the X-Amz-Algorithm,"
            " X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and"
            " X-Amz-Expires parameters.",
        )
    if query["X-Amz-Algorithm"] != sigv4_claim.ALGORITHM:
        raise s3_error.make(
            "AuthorizationQueryParametersError",
            f'X-Amz-Algorithm only supports "{sigv4_claim.ALGORITHM}"',
        )
    claim = sigv4_claim.of_fields(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"],
        "AuthorizationQueryParametersError",
    )
    if claim.region != region:
        raise s3_error.make(
            "AuthorizationQueryParametersError",
            "Error parsing the X-Amz-Credential parameter; the region"
            f" '{claim.region}' is wrong; expecting '{region}'",
            Region=region,
        )
    amz_date = query["X-Amz-Date"]
    seconds = signatures.seconds(amz_date)
    if seconds is None or amz_date[:8] != claim.date:
        raise s3_error.make(
            "AuthorizationQueryParametersError",
            "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\" and of"
            " the credential's day",
        )
    expires = sigv4_claim.expires_seconds(query["X-Amz-Expires"])
    if now_seconds < seconds - sigv4_claim.SKEW_SECONDS_MAX:
        raise s3_error.make("AccessDenied", "Request is not yet valid")
    if now_seconds >= seconds + expires:
        raise s3_error.make(
            "AccessDenied",
            "Request has expired",
            **{"X-Amz-Expires": str(expires)},
            Expires=timestamps.iso8601((seconds + expires) * 1_000_000_000),
            ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
        )
    credential = signatures.credential(claim.access_key)
    sigv4_claim.require_signed(claim, values, amz_names)
    content_sha256 = (
        values.get("x-amz-content-sha256")
        or query.get("X-Amz-Content-Sha256")
        or request_identity.UNSIGNED_PAYLOAD
    )
    kind = request_identity.payload_kind(content_sha256)
    signature = query["X-Amz-Signature"]
    key = signatures.check(
        method,
        raw_path,
        sigv4_canonical.query([item for item in parameters if item[0] != "X-Amz-Signature"]),
        values,
        claim,
        credential,
        amz_date,
        content_sha256,
        signature,
    )
    return request_identity.Identity(
        credential=credential,
        payload=kind,
        payload_sha256=request_identity.signed_sha256(kind, content_sha256),
        signing_key=key,
        scope=claim.scope,
        amz_date=amz_date,
        seed_signature=signature,
        amz_names=amz_names,
    )
