"""How requests to administer a node are signed: by Signature Version 4, for a service of its own.

A signature for S3 opens nothing here, and the other way round, because the service is part of what
is signed. So are the method, the path, the host, the time, and the body by its digest.

Source: AWS General Reference, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from couchestor_gateway.protocol import timestamps

SERVICE: Final = "couchestor-admin"
REGION: Final = "local"
SKEW_SECONDS_MAX: Final = 300
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SIGNED: Final = ("host", "x-amz-content-sha256", "x-amz-date")
_SIGNED_TEXT: Final = ";".join(_SIGNED)


def headers_for(
    method: str,
    path: str,
    body: bytes,
    *,
    host: str,
    access_key: str,
    secret_key: str,
    now_seconds: int,
) -> dict[str, str]:
    """What a request needs to be let in, ``Host`` included.

    Args:
        path: As it is sent, without a query.
    """
    date = timestamps.amz_date(now_seconds)
    headers = {
        "host": host,
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        "x-amz-date": date,
    }
    signature = _signature(method, path, headers, secret_key)
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={access_key}/{_scope(date)}, SignedHeaders={_SIGNED_TEXT}, "
        f"Signature={signature}"
    )
    return headers


def refusal(
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    access_key: str,
    secret_key: str,
    now_seconds: float,
) -> str | None:
    """Why a request is not let in; None: it is, if its body has the digest that it names.

    Args:
        path: As it came, without a query.
        headers: Names in lower case.
    """
    given = headers.get("authorization", "")
    date = headers.get("x-amz-date", "")
    seconds = timestamps.parse_amz_date(date)
    if not given.startswith(_ALGORITHM + " ") or seconds is None:
        return f"the request is not signed by Signature Version 4 for the service {SERVICE}"
    fields = dict(
        item.strip().partition("=")[::2] for item in given.removeprefix(_ALGORITHM).split(",")
    )
    if fields.get("Credential") != f"{access_key}/{_scope(date)}":
        return (
            "the credential must be root's, of the day of x-amz-date and"
            f" /{REGION}/{SERVICE}/aws4_request"
        )
    if fields.get("SignedHeaders") != _SIGNED_TEXT or any(
        not headers.get(name) for name in _SIGNED
    ):
        return f"the signed headers must be {_SIGNED_TEXT}"
    if abs(now_seconds - seconds) > SKEW_SECONDS_MAX:
        return f"x-amz-date is more than {SKEW_SECONDS_MAX} seconds from the node's clock"
    signature = fields.get("Signature", "")
    expected = _signature(method, path, headers, secret_key)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
        return "the signature is not root's, or is one of another request"
    return None


def _scope(date: str) -> str:
    return f"{date[:8]}/{REGION}/{SERVICE}/aws4_request"


def _signature(method: str, path: str, headers: Mapping[str, str], secret_key: str) -> str:
    canonical = "\n".join(
        (
            method,
            path,
            "",
            *(f"{name}:{headers[name].strip()}" for name in _SIGNED),
            "",
            _SIGNED_TEXT,
            headers["x-amz-content-sha256"],
        )
    )
    date = headers["x-amz-date"]
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{_ALGORITHM}\n{date}\n{_scope(date)}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for step in (date[:8], REGION, SERVICE, "aws4_request", text):
        key = hmac.digest(key, step.encode("utf-8", "surrogateescape"), "sha256")
    return key.hex()
