"""Removing aws-chunked framing from a body and verifying its chain of signatures. Sans-I/O.

    chunk   = hex-size [";chunk-signature=" 64 hex] CRLF  size bytes  CRLF
    body    = chunk*  "0" [";chunk-signature=" 64 hex] CRLF  *(name ":" value CRLF)  CRLF

Each chunk's signature covers the previous one; the first follows the request's own. With signed
trailers the last trailer is ``x-amz-trailer-signature``.

Source: AWS S3 API reference, "Signature Calculations for the Authorization Header: Transferring
Payload in Multiple Chunks" and its page on trailing headers.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from couchestor_domain import units
from couchestor_gateway.protocol import request_identity, s3_error

HEADER_BYTES_MAX: Final = units.KIB
TRAILERS_BYTES_MAX: Final = 8 * units.KIB
CHUNK_BYTES_MAX: Final = 5 * units.GIB

_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"
_HEX: Final = b"0123456789abcdefABCDEF"


class _State(enum.Enum):
    HEADER = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class ChunkedDecoder:
    """Decodes one body.

    A chunk's signature can be checked only at its end, but its bytes are released as they come:
    the caller MUST NOT make anything durable or visible before ``finished`` is true. After an
    error every further call raises.

    Args:
        identity: Of the request; its ``payload`` is one of the streaming kinds.
        decoded_length: Bytes announced in ``x-amz-decoded-content-length``.
        trailer_names: Announced in ``x-amz-trailer``, lower case.
    """

    __slots__ = (
        "_hash",
        "_left_bytes",
        "_line",
        "_prefix",
        "_signature",
        "_signature_given",
        "_signed",
        "_signing_key",
        "_state",
        "_total_left_bytes",
        "_trailer_bytes",
        "_trailer_names",
        "_trailers_allowed",
        "trailers",
    )

    def __init__(
        self, identity: request_identity.Identity, decoded_length: int, trailer_names: Iterable[str]
    ) -> None:
        kind = identity.payload
        self._signed = kind in (
            request_identity.PayloadKind.STREAMING_SIGNED,
            request_identity.PayloadKind.STREAMING_SIGNED_TRAILER,
        )
        self._trailers_allowed = kind is not request_identity.PayloadKind.STREAMING_SIGNED
        self._trailer_names = frozenset(name.lower() for name in trailer_names)
        self._signing_key = identity.signing_key
        self._prefix = f"{identity.amz_date}\n{identity.scope}\n"
        self._signature = identity.seed_signature
        self._signature_given = ""
        self._hash = hashlib.sha256()
        self._state = _State.HEADER
        self._line = bytearray()
        self._left_bytes = 0
        self._total_left_bytes = decoded_length
        self._trailer_bytes = 0
        self.trailers: dict[str, str] = {}
        """Verified trailers, names in lower case; complete once ``finished``."""

    @property
    def finished(self) -> bool:
        """Whether the whole body was decoded and verified."""
        return self._state is _State.DONE

    def feed(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """Decode the next bytes from the wire, cut anywhere.

        Returns:
            Pieces of payload, in order, as views of ``data`` (not copied).

        Raises:
            S3Error: SignatureDoesNotMatch, IncompleteBody (framing or length wrong),
                InvalidRequest (bounds), MalformedTrailerError.
        """
        if self._state is _State.FAILED:
            raise _malformed("the body has already failed")
        try:
            return self._feed(memoryview(data))
        except s3_error.S3Error:
            self._state = _State.FAILED
            raise

    def close(self) -> None:
        """The wire has ended.

        Raises:
            S3Error: IncompleteBody unless ``finished``.
        """
        if self._state is not _State.DONE:
            self._state = _State.FAILED
            raise s3_error.make("IncompleteBody", "The request body terminated unexpectedly")

    def _feed(self, view: memoryview) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        position, end = 0, len(view)
        while position < end:
            state = self._state
            if state is _State.DATA:
                piece = view[position : position + self._left_bytes]
                position += len(piece)
                self._left_bytes -= len(piece)
                if self._signed:
                    self._hash.update(piece)
                pieces.append(piece)
                if self._left_bytes == 0:
                    self._verify_chunk()
                    self._state = _State.DATA_END
                continue
            if state is _State.DONE:
                raise _malformed("bytes follow the end of the body")
            line, position = self._take_line(view, position)
            if line is None:
                break
            if state is _State.HEADER:
                self._start_chunk(line)
            elif state is _State.DATA_END:
                if line:
                    raise _malformed("a chunk is longer than its size")
                self._state = _State.HEADER
            else:
                self._take_trailer(line)
        return pieces

    def _take_line(self, view: memoryview, position: int) -> tuple[bytes | None, int]:
        """A whole line without its end, or None when more bytes are needed."""
        if self._state is _State.HEADER:
            limit = HEADER_BYTES_MAX
        elif self._state is _State.DATA_END:
            limit = 2
        else:
            limit = TRAILERS_BYTES_MAX - self._trailer_bytes
        window = bytes(view[position : position + limit + 1 - len(self._line)])
        cut = window.find(b"\n")
        taken = len(window) if cut < 0 else cut + 1
        self._line += window[:taken]
        if len(self._line) > limit:
            if self._state is _State.DATA_END:
                raise _malformed("a chunk is longer than its size")
            raise s3_error.make("InvalidRequest", "A chunk header or the trailers are too long.")
        if cut < 0:
            return None, position + taken
        line = bytes(self._line)
        self._line.clear()
        if self._state is _State.TRAILERS:
            self._trailer_bytes += len(line)
        elif not line.endswith(b"\r\n"):
            raise _malformed("a line does not end with CR LF")
        return line.rstrip(b"\r\n"), position + taken

    def _start_chunk(self, line: bytes) -> None:
        size_text, _, extension = line.partition(b";")
        if not size_text or len(size_text) > 16 or size_text.strip(_HEX):
            raise _malformed("a chunk's size is not a hexadecimal number")
        size_bytes = int(size_text, 16)
        if size_bytes > CHUNK_BYTES_MAX:
            raise s3_error.make("InvalidRequest", "A chunk is too long.")
        if size_bytes > self._total_left_bytes:
            raise _malformed("the chunks are longer than x-amz-decoded-content-length")
        if self._signed:
            name, _, value = extension.partition(b"=")
            if name.strip() != b"chunk-signature" or len(value) != 64 or value.strip(_HEX):
                raise _malformed("a chunk has no signature")
            self._signature_given = value.decode("ascii")
            self._hash = hashlib.sha256()
        self._total_left_bytes -= size_bytes
        self._left_bytes = size_bytes
        if size_bytes:
            self._state = _State.DATA
            return
        if self._total_left_bytes:
            raise _malformed("the chunks are shorter than x-amz-decoded-content-length")
        self._verify_chunk()
        self._state = _State.TRAILERS

    def _verify_chunk(self) -> None:
        if not self._signed:
            return
        text = (
            f"AWS4-HMAC-SHA256-PAYLOAD\n{self._prefix}{self._signature}\n{_EMPTY_SHA256}\n"
            f"{self._hash.hexdigest()}"
        )
        self._signature = self._verified(text, self._signature_given)

    def _verified(self, text: str, given: str) -> str:
        expected = hmac.digest(self._signing_key, text.encode("utf-8"), "sha256").hex()
        if not hmac.compare_digest(expected, given):
            raise s3_error.make("SignatureDoesNotMatch", StringToSign=text, SignatureProvided=given)
        return expected

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            # Some clients put a blank line before the signature of the trailers.
            if self._signed and self._trailers_allowed and _TRAILER_SIGNATURE not in self.trailers:
                return
            self._finish()
            return
        if not self._trailers_allowed or _TRAILER_SIGNATURE in self.trailers:
            raise s3_error.make("MalformedTrailerError")
        raw_name, separator, raw_value = line.partition(b":")
        try:
            name = raw_name.decode("ascii").strip().lower()
            value = raw_value.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise s3_error.make("MalformedTrailerError") from exc
        announced = name in self._trailer_names or (self._signed and name == _TRAILER_SIGNATURE)
        if not separator or not announced or name in self.trailers:
            raise s3_error.make("MalformedTrailerError")
        self.trailers[name] = value

    def _finish(self) -> None:
        signature = self.trailers.pop(_TRAILER_SIGNATURE, None)
        if self._trailer_names - self.trailers.keys():
            raise s3_error.make("MalformedTrailerError")
        if signature is not None:
            lines = "".join(f"{name}:{self.trailers[name]}\n" for name in sorted(self.trailers))
            digest = hashlib.sha256(lines.encode("ascii")).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{self._prefix}{self._signature}\n{digest}"
            self._verified(text, signature)
        self._state = _State.DONE


def _malformed(detail: str) -> s3_error.S3Error:
    return s3_error.make("IncompleteBody", f"The aws-chunked body is malformed: {detail}.")
