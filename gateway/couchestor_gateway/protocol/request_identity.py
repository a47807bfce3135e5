"""Who sent a request, and what its signature says of the body."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_gateway.ports import credentials as credential_port
from couchestor_gateway.protocol import s3_error

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"

_HEX: Final = "0123456789abcdefABCDEF"


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
SIGNED_CHUNKS: Final = (PayloadKind.STREAMING_SIGNED, PayloadKind.STREAMING_SIGNED_TRAILER)


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
    """Names of the request's ``x-amz-`` headers, lower-case."""
    is_version_2: bool = False
    """Whether an old signature proves it, which covers less (``sigv2``)."""


def signed_sha256(kind: PayloadKind, content_sha256: str) -> str:
    """``Identity.payload_sha256`` of a payload of that kind."""
    return content_sha256.lower() if kind is PayloadKind.SIGNED_SHA256 else ""


def payload_kind(content_sha256: str) -> PayloadKind:
    """What an ``x-amz-content-sha256`` says of the body.

    Raises:
        S3Error: InvalidArgument.
    """
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
