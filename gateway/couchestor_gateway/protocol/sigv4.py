"""AWS Signature Version 4: who signed a request, and whether it is what was signed.

Written for the hot path, an authenticated GET: signing keys, parsed Authorization prefixes and
dates come from bounded caches, and nothing is matched by regular expression.

Source: AWS S3 API reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import (
    request_identity,
    s3_error,
    sigv2,
    sigv4_canonical,
    sigv4_claim,
    sigv4_presigned,
    sigv4_signatures,
    timestamps,
)

_CACHED_TEXT_MAX: Final = 512

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
"""Names in any case; a mapping's ``items`` may repeat a name, as a multidict's does."""


class Verifier:
    """Verifies requests against one credential store and one region; keeps bounded caches.

    Args:
        credentials: Looked up once per request.
        region: The only region accepted in a credential's scope.
        takes_version_2: Whether requests may be signed by Signature Version 2, too.
    """

    __slots__ = ("_claims", "_region", "_signatures", "_takes_version_2")

    def __init__(
        self,
        credentials: credential_port.CredentialStore,
        region: str,
        *,
        takes_version_2: bool = False,
    ) -> None:
        self._takes_version_2 = takes_version_2
        self._signatures = sigv4_signatures.Signatures(credentials)
        self._region = region
        self._claims: dict[str, sigv4_claim.Claim] = {}

    def verify(
        self,
        *,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Headers,
        now_seconds: float,
        host_bucket: str = "",
    ) -> request_identity.Identity:
        """Authenticate a request before its body is read.

        Args:
            method: Upper case.
            raw_path: As sent, percent-encoding untouched, starting with ``/``.
            raw_query: As sent, without ``?``.
            headers: As sent.
            now_seconds: Wall clock, seconds since the Unix epoch.
            host_bucket: The bucket that the Host header names, in place of the path.

        Returns:
            The identity; its ``credential`` is None when the request carries no authentication.

        Raises:
            S3Error: AccessDenied, InvalidAccessKeyId, SignatureDoesNotMatch, ... as AWS.
        """
        values: dict[str, str] = {}
        amz_names: list[str] = []
        pairs: Iterable[tuple[str, str]]
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        for name, value in pairs:
            name = name.lower()
            if name in values:
                values[name] = f"{values[name]},{sigv4_canonical.trimmed(value)}"
                continue
            values[name] = sigv4_canonical.trimmed(value)
            if name.startswith("x-amz-"):
                amz_names.append(name)
        authorization = values.get("authorization")
        if raw_query and "X-Amz-" in raw_query:
            parameters = sigv4_canonical.parameters(raw_query)
            query = dict(parameters)
            if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
                if authorization is not None:
                    raise s3_error.make(
                        "InvalidArgument",
                        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter"
                        " or the Authorization header should be specified",
                        ArgumentName="Authorization",
                    )
                return sigv4_presigned.verify(
                    self._signatures,
                    self._region,
                    method=method,
                    raw_path=raw_path,
                    parameters=parameters,
                    query=query,
                    values=values,
                    amz_names=amz_names,
                    now_seconds=now_seconds,
                )
        if authorization is None:
            if sigv2.is_presigned(raw_query):
                if not self._takes_version_2:
                    raise sigv4_claim.version_2_refused()
                return sigv2.by_query(
                    self._signatures,
                    method=method,
                    resource=_resource(raw_path, host_bucket),
                    raw_query=raw_query,
                    values=sigv2.header_values(pairs),
                    amz_names=amz_names,
                    now_seconds=now_seconds,
                )
            return _anonymous(values, amz_names)
        if self._takes_version_2 and authorization.partition(" ")[0] == sigv2.SCHEME:
            if sigv2.is_presigned(raw_query):
                raise s3_error.make(
                    "InvalidArgument",
                    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter,"
                    " Signature query string parameter or the Authorization header should be"
                    " specified",
                    ArgumentName="Authorization",
                )
            return sigv2.by_header(
                self._signatures,
                method=method,
                resource=_resource(raw_path, host_bucket),
                raw_query=raw_query,
                authorization=authorization,
                values=sigv2.header_values(pairs),
                amz_names=amz_names,
                now_seconds=now_seconds,
            )
        return self._header_signed(
            method, raw_path, raw_query, authorization, values, amz_names, now_seconds
        )

    def _header_signed(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        authorization: str,
        values: dict[str, str],
        amz_names: list[str],
        now_seconds: float,
    ) -> request_identity.Identity:
        prefix, separator, signature = authorization.rpartition("Signature=")
        claim = self._claims.get(prefix)
        if claim is None:
            if not separator or "Credential=" in signature or "SignedHeaders=" in signature:
                # Signature is not last: put it there.
                prefix, signature = sigv4_claim.reordered(authorization)
            claim = sigv4_claim.of_authorization(prefix)
            if len(prefix) <= _CACHED_TEXT_MAX:
                sigv4_signatures.remember(self._claims, prefix, claim)
        if claim.region != self._region:
            raise s3_error.make(
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; the region '{claim.region}' is wrong;"
                f" expecting '{self._region}'",
                Region=self._region,
            )
        amz_date = values.get("x-amz-date")
        if not amz_date:
            seconds = timestamps.parse_http_date(values.get("date", ""))
            if seconds is None:
                raise s3_error.make(
                    "AccessDenied",
                    "AWS authentication requires a valid Date or x-amz-date header",
                )
            amz_date = timestamps.amz_date(seconds)
        else:
            seconds = self._signatures.seconds(amz_date)
            if seconds is None:
                raise s3_error.make(
                    "AccessDenied",
                    "AWS authentication requires a valid Date or x-amz-date header",
                )
        content_sha256 = values.get("x-amz-content-sha256")
        if content_sha256 is None:
            raise s3_error.make(
                "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
            )
        kind = request_identity.payload_kind(content_sha256)
        credential = self._signatures.credential(claim.access_key)
        if abs(now_seconds - seconds) > sigv4_claim.SKEW_SECONDS_MAX:
            raise s3_error.make(
                "RequestTimeTooSkewed",
                RequestTime=amz_date,
                ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
                MaxAllowedSkewMilliseconds=str(sigv4_claim.SKEW_SECONDS_MAX * 1000),
            )
        if amz_date[:8] != claim.date:
            raise s3_error.make(
                "AuthorizationHeaderMalformed",
                "The authorization header is malformed; Invalid credential date"
                f' "{claim.date}". This date is not the same as X-Amz-Date: "{amz_date[:8]}".',
            )
        sigv4_claim.require_signed(claim, values, amz_names)
        canonical_query = (
            sigv4_canonical.query(sigv4_canonical.parameters(raw_query)) if raw_query else ""
        )
        key = self._signatures.check(
            method,
            raw_path,
            canonical_query,
            values,
            claim,
            credential,
            amz_date,
            content_sha256,
            signature.strip(),
        )
        return request_identity.Identity(
            credential=credential,
            payload=kind,
            payload_sha256=request_identity.signed_sha256(kind, content_sha256),
            signing_key=key,
            scope=claim.scope,
            amz_date=amz_date,
            seed_signature=signature.strip(),
            amz_names=amz_names,
        )


def _resource(raw_path: str, host_bucket: str) -> str:
    """Bucket and path, as Signature Version 2 signs them."""
    return f"/{host_bucket}{raw_path}" if host_bucket else raw_path


def _anonymous(values: dict[str, str], amz_names: list[str]) -> request_identity.Identity:
    content_sha256 = values.get("x-amz-content-sha256", request_identity.UNSIGNED_PAYLOAD)
    kind = request_identity.payload_kind(content_sha256)
    if kind in request_identity.SIGNED_CHUNKS:
        raise s3_error.make("AccessDenied", "An anonymous request cannot have signed chunks.")
    digest = request_identity.signed_sha256(kind, content_sha256)
    return request_identity.Identity(
        credential=None, payload=kind, payload_sha256=digest, amz_names=amz_names
    )
