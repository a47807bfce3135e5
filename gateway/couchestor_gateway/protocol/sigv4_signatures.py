"""What every form of Signature Version 4 proves itself by: keys derived from secrets, and HMACs."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, TypeVar

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import s3_error, sigv4_canonical, sigv4_claim, timestamps

_CACHE_ENTRIES_MAX: Final = 1024

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Signatures:
    """Checks signatures against one credential store; keeps bounded caches.

    Args:
        credentials: Looked up once per request.
    """

    __slots__ = ("_credentials", "_dates", "_keys")

    def __init__(self, credentials: credential_port.CredentialStore) -> None:
        self._credentials = credentials
        self._keys: dict[tuple[str, str], bytes] = {}
        self._dates: dict[str, int] = {}

    def check(
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
        """The signing key, once the signature has been found right.

        Raises:
            S3Error: SignatureDoesNotMatch.
        """
        key = self.signing_key(credential, claim)
        given = signature.encode("utf-8", "surrogateescape")
        tail = [canonical_query]
        for name in claim.signed:
            tail.append(f"{name}:{values.get(name, '')}")
        tail += ("", claim.signed_text, content_sha256)
        rest = "\n".join(tail)
        canonical_path = sigv4_canonical.path(raw_path)
        canonical = f"{method}\n{canonical_path}\n{rest}"
        text = _string_to_sign(amz_date, claim.scope, canonical)
        if is_signature(key, text, given):
            return key
        if canonical_path != raw_path:
            # Clients that sign the path as they send it are as sure: it names the same key.
            as_sent = f"{method}\n{raw_path}\n{rest}"
            if is_signature(key, _string_to_sign(amz_date, claim.scope, as_sent), given):
                return key
        raise s3_error.make(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=claim.access_key,
            StringToSign=text,
            SignatureProvided=signature,
            CanonicalRequest=canonical,
        )

    def credential(self, access_key: str) -> credential_port.Credential:
        """The credential of an access key. Raises S3Error: InvalidAccessKeyId."""
        credential = self._credentials.find(access_key)
        if credential is None:
            raise s3_error.make("InvalidAccessKeyId", AWSAccessKeyId=access_key)
        return credential

    def signing_key(
        self, credential: credential_port.Credential, claim: sigv4_claim.Claim
    ) -> bytes:
        """The key that a claim must have signed with."""
        # The secret, not the access key, so that a changed secret takes effect at once.
        cache_key = (credential.secret_key, claim.scope)
        key = self._keys.get(cache_key)
        if key is None:
            key = derive_signing_key(credential.secret_key, claim.date, claim.region)
            remember(self._keys, cache_key, key)
        return key

    def seconds(self, amz_date: str) -> int | None:
        """An ``x-amz-date`` in seconds since the epoch, or None where it is none."""
        seconds = self._dates.get(amz_date)
        if seconds is None:
            seconds = timestamps.parse_amz_date(amz_date)
            if seconds is not None:
                remember(self._dates, amz_date, seconds)
        return seconds


def derive_signing_key(secret_key: str, date: str, region: str) -> bytes:
    """The key of one day, region and the service ``s3``."""
    key = f"AWS4{secret_key}".encode()
    for step in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, step.encode("utf-8", "surrogateescape"), "sha256")
    return key


def remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Add an entry to a cache of bounded size."""
    # Emptying a full cache is simpler than evicting and costs one miss per live entry.
    if len(cache) >= _CACHE_ENTRIES_MAX:
        cache.clear()
    cache[key] = value


def _string_to_sign(amz_date: str, scope: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{sigv4_claim.ALGORITHM}\n{amz_date}\n{scope}\n{digest}"


def is_signature(key: bytes, text: str, given: bytes) -> bool:
    """Whether ``given``, in lower-case hexadecimal, signs ``text``; compared in constant time."""
    expected = hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()
    return hmac.compare_digest(expected.encode("ascii"), given)
