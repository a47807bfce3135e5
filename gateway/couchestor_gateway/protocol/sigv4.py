"""AWS Signature Version 4: who signed a request, and whether it is what was signed.

Written for the hot path, an authenticated GET: signing keys, parsed Authorization prefixes and
dates come from bounded caches, and nothing is matched by regular expression.

Source: AWS S3 API reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import s3_error, sigv4_canonical, sigv4_claim, timestamps

ALGORITHM: Final = sigv4_claim.ALGORITHM
SKEW_SECONDS_MAX: Final = 15 * 60
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"

_HEX: Final = "0123456789abcdefABCDEF"
_CACHE_ENTRIES_MAX: Final = 1024
_CACHED_TEXT_MAX: Final = 512

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
"""Names in any case; a mapping's ``items`` may repeat a name, as a multidict's does."""


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class PayloadKind(enum.Enum):
    """What ``x-amz-content-sha256`` says about the body."""

    UNSIGNED = "UNSIGNED-PAYLOAD"
    SIGNED_SHA256 = "<sha256>"
    STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def is_streaming(self) -> bool:
        """Whether the body has aws-chunked framing."""
        return self not in (PayloadKind.UNSIGNED, PayloadKind.SIGNED_SHA256)


_STREAMING: Final = {kind.value: kind for kind in PayloadKind if kind.is_streaming}
_SIGNED_CHUNKS: Final = (PayloadKind.STREAMING_SIGNED, PayloadKind.STREAMING_SIGNED_TRAILER)


@dataclass(slots=True, kw_only=True)
class Identity:
    """Who sent a request, and what is needed to verify its body."""

    credential: credential_port.Credential | None
    """None: anonymous."""
    payload: PayloadKind
    payload_sha256: str = ""
    """Lower-case hexadecimal; set when ``payload`` is ``SIGNED_SHA256``."""
    signing_key: bytes = b""
    scope: str = ""
    """``date/region/s3/aws4_request``."""
    amz_date: str = ""
    seed_signature: str = ""
    """The request's own signature: the first link of the chunks' chain."""
    amz_names: Sequence[str] = ()
    """Names of the request's ``x-amz-`` headers, lower-case; set when ``credential`` is."""


class Verifier:
    """Verifies requests against one credential store and one region; keeps bounded caches.

    Args:
        credentials: Looked up once per request.
        region: The only region accepted in a credential's scope.
    """

    __slots__ = ("_claims", "_credentials", "_dates", "_keys", "_region")

    def __init__(self, credentials: credential_port.CredentialStore, region: str) -> None:
        self._credentials = credentials
        self._region = region
        self._keys: dict[tuple[str, str], bytes] = {}
        self._claims: dict[str, sigv4_claim.Claim] = {}
        self._dates: dict[str, int] = {}

    def verify(
        self,
        *,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Headers,
        now_seconds: float,
    ) -> Identity:
        """Authenticate a request before its body is read.

        Args:
            method: Upper case.
            raw_path: As sent, percent-encoding untouched, starting with ``/``.
            raw_query: As sent, without ``?``.
            headers: As sent.
            now_seconds: Wall clock, seconds since the Unix epoch.

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
                return self._presigned(
                    method, raw_path, parameters, query, values, amz_names, now_seconds
                )
        if authorization is None:
            if "Signature=" in raw_query and "AWSAccessKeyId=" in raw_query:
                raise sigv4_claim.version_2_refused()
            return _anonymous(values)
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
    ) -> Identity:
        prefix, separator, signature = authorization.rpartition("Signature=")
        claim = self._claims.get(prefix)
        if claim is None:
            if not separator or "Credential=" in signature or "SignedHeaders=" in signature:
                # Signature is not last: put it there.
                prefix, signature = sigv4_claim.reordered(authorization)
            claim = sigv4_claim.of_authorization(prefix)
            if len(prefix) <= _CACHED_TEXT_MAX:
                _remember(self._claims, prefix, claim)
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
            seconds = self._seconds(amz_date)
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
        kind = _payload_kind(content_sha256)
        credential = self._credential(claim.access_key)
        if abs(now_seconds - seconds) > SKEW_SECONDS_MAX:
            raise s3_error.make(
                "RequestTimeTooSkewed",
                RequestTime=amz_date,
                ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
                MaxAllowedSkewMilliseconds=str(SKEW_SECONDS_MAX * 1000),
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
        key = self._check(
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
        return Identity(
            credential=credential,
            payload=kind,
            payload_sha256=content_sha256.lower() if kind is PayloadKind.SIGNED_SHA256 else "",
            signing_key=key,
            scope=claim.scope,
            amz_date=amz_date,
            seed_signature=signature.strip(),
            amz_names=amz_names,
        )

    def _presigned(
        self,
        method: str,
        raw_path: str,
        parameters: list[tuple[str, str]],
        query: dict[str, str],
        values: dict[str, str],
        amz_names: list[str],
        now_seconds: float,
    ) -> Identity:
        wanted = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
        if any(not query.get(f"X-Amz-{name}") for name in wanted):
            raise s3_error.make(
                "AuthorizationQueryParametersError",
                "Query-string authentication version 4 requires the X-Amz-Algorithm,"
                " X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and"
                " X-Amz-Expires parameters.",
            )
        if query["X-Amz-Algorithm"] != ALGORITHM:
            raise s3_error.make(
                "AuthorizationQueryParametersError",
                f'X-Amz-Algorithm only supports "{ALGORITHM}"',
            )
        claim = sigv4_claim.of_fields(
            query["X-Amz-Credential"],
            query["X-Amz-SignedHeaders"],
            "AuthorizationQueryParametersError",
        )
        if claim.region != self._region:
            raise s3_error.make(
                "AuthorizationQueryParametersError",
                "Error parsing the X-Amz-Credential parameter; the region"
                f" '{claim.region}' is wrong; expecting '{self._region}'",
                Region=self._region,
            )
        amz_date = query["X-Amz-Date"]
        seconds = self._seconds(amz_date)
        if seconds is None or amz_date[:8] != claim.date:
            raise s3_error.make(
                "AuthorizationQueryParametersError",
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\" and of"
                " the credential's day",
            )
        expires = sigv4_claim.expires_seconds(query["X-Amz-Expires"])
        if now_seconds < seconds - SKEW_SECONDS_MAX:
            raise s3_error.make("AccessDenied", "Request is not yet valid")
        if now_seconds >= seconds + expires:
            raise s3_error.make(
                "AccessDenied",
                "Request has expired",
                **{"X-Amz-Expires": str(expires)},
                Expires=timestamps.iso8601((seconds + expires) * 1_000_000_000),
                ServerTime=timestamps.iso8601(int(now_seconds) * 1_000_000_000),
            )
        credential = self._credential(claim.access_key)
        sigv4_claim.require_signed(claim, values, amz_names)
        content_sha256 = (
            values.get("x-amz-content-sha256")
            or query.get("X-Amz-Content-Sha256")
            or UNSIGNED_PAYLOAD
        )
        kind = _payload_kind(content_sha256)
        signature = query["X-Amz-Signature"]
        key = self._check(
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
        return Identity(
            credential=credential,
            payload=kind,
            payload_sha256=content_sha256.lower() if kind is PayloadKind.SIGNED_SHA256 else "",
            signing_key=key,
            scope=claim.scope,
            amz_date=amz_date,
            seed_signature=signature,
            amz_names=amz_names,
        )

    def _check(
        self,
        method: str,
        raw_path: str,
        canonical_query: str,
        values: dict[str, str],
        claim: sigv4_claim.Claim,
        credential: credential_port.Credential,
        amz_date: str,
        content_sha256: str,
        signature: str,
    ) -> bytes:
        """The signing key, once the signature has been found right."""
        key = self._signing_key(credential, claim)
        given = signature.encode("utf-8", "surrogateescape")
        tail = [canonical_query]
        for name in claim.signed:
            tail.append(f"{name}:{values.get(name, '')}")
        tail += ("", claim.signed_text, content_sha256)
        rest = "\n".join(tail)
        canonical_path = sigv4_canonical.path(raw_path)
        canonical = f"{method}\n{canonical_path}\n{rest}"
        text = _string_to_sign(amz_date, claim.scope, canonical)
        if _is_signature(key, text, given):
            return key
        if canonical_path != raw_path:
            # Clients that sign the path as they send it are as sure: it names the same key.
            as_sent = f"{method}\n{raw_path}\n{rest}"
            if _is_signature(key, _string_to_sign(amz_date, claim.scope, as_sent), given):
                return key
        raise s3_error.make(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=claim.access_key,
            StringToSign=text,
            SignatureProvided=signature,
            CanonicalRequest=canonical,
        )

    def _credential(self, access_key: str) -> credential_port.Credential:
        credential = self._credentials.find(access_key)
        if credential is None:
            raise s3_error.make("InvalidAccessKeyId", AWSAccessKeyId=access_key)
        return credential

    def _signing_key(
        self, credential: credential_port.Credential, claim: sigv4_claim.Claim
    ) -> bytes:
        # The secret, not the access key, so that a changed secret takes effect at once.
        cache_key = (credential.secret_key, claim.scope)
        key = self._keys.get(cache_key)
        if key is None:
            key = derive_signing_key(credential.secret_key, claim.date, claim.region)
            _remember(self._keys, cache_key, key)
        return key

    def _seconds(self, amz_date: str) -> int | None:
        seconds = self._dates.get(amz_date)
        if seconds is None:
            seconds = timestamps.parse_amz_date(amz_date)
            if seconds is not None:
                _remember(self._dates, amz_date, seconds)
        return seconds


def derive_signing_key(secret_key: str, date: str, region: str) -> bytes:
    """The key of one day, region and the service ``s3``."""
    key = f"AWS4{secret_key}".encode()
    for step in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, step.encode("utf-8", "surrogateescape"), "sha256")
    return key


def _remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    # Emptying a full cache is simpler than evicting and costs one miss per live entry.
    if len(cache) >= _CACHE_ENTRIES_MAX:
        cache.clear()
    cache[key] = value


def _string_to_sign(amz_date: str, scope: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{digest}"


def _is_signature(key: bytes, text: str, given: bytes) -> bool:
    expected = hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()
    return hmac.compare_digest(expected.encode("ascii"), given)


def _anonymous(values: dict[str, str]) -> Identity:
    content_sha256 = values.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
    kind = _payload_kind(content_sha256)
    if kind in _SIGNED_CHUNKS:
        raise s3_error.make("AccessDenied", "An anonymous request cannot have signed chunks.")
    digest = content_sha256.lower() if kind is PayloadKind.SIGNED_SHA256 else ""
    return Identity(credential=None, payload=kind, payload_sha256=digest)


def _payload_kind(content_sha256: str) -> PayloadKind:
    if content_sha256 == UNSIGNED_PAYLOAD:
        return PayloadKind.UNSIGNED
    if len(content_sha256) == 64 and not content_sha256.strip(_HEX):
        return PayloadKind.SIGNED_SHA256
    kind = _STREAMING.get(content_sha256)
    if kind is None:
        raise s3_error.make(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD,"
            f" {', '.join(_STREAMING)}, or a valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
            ArgumentValue=content_sha256,
        )
    return kind
