"""Digests of a body: computed over its decoded bytes, compared with what the client announced."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, Self

from awscrt import checksums as crt

from couchestor_domain import objects
from couchestor_gateway.ports import hashing
from couchestor_gateway.protocol import request_identity, s3_error

ALGORITHMS: Final[Mapping[str, int]] = {
    "crc32": 4,
    "crc32c": 4,
    "crc64nvme": 8,
    "sha1": 20,
    "sha256": 32,
}
"""Checksum algorithms served -> length of the value in bytes."""

_PREFIX: Final = "x-amz-checksum-"
_HEADERS: Final = tuple((name, _PREFIX + name) for name in ALGORITHMS)
_REFUSED_HEADERS: Final = tuple(
    _PREFIX + name for name in ("md5", "sha512", "xxhash3", "xxhash64", "xxhash128")
)


class _Digest(Protocol):
    def update(self, view: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check with the interface of a hash; big-endian as S3 writes it."""

    __slots__ = ("_function", "_length_bytes", "_value")

    def __init__(self, function: Callable[..., int], length_bytes: int) -> None:
        self._function = function
        self._length_bytes = length_bytes
        self._value = 0

    def update(self, view: bytes | memoryview, /) -> None:
        self._value = self._function(view, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length_bytes, "big")


_FACTORIES: Final[Mapping[str, Callable[[], _Digest]]] = {
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "crc32c": lambda: _Crc(crt.crc32c, 4),
    "crc64nvme": lambda: _Crc(crt.crc64nvme, 8),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}


class BodyDigester:
    """Digests every decoded byte of one body once, in order, then judges the result.

    MD5 is always computed: it is the ETag. Calls must not overlap; they may come from threads.

    Args:
        algorithms: Checksums to compute and report, of ``ALGORITHMS``.
        md5: The client's Content-MD5 (16 bytes), or None.
        payload_sha256: The signed payload digest, lower-case hexadecimal, or None.
        values: Checksums the client gave up front: algorithm -> base64.
        trailing: Algorithms whose value comes in the trailers.
        shared_md5: Of an empty message: takes the MD5 together with those of other bodies.
    """

    __slots__ = (
        "_checksums",
        "_md5",
        "_md5_wanted",
        "_sha256",
        "_sha256_wanted",
        "_shared_md5",
        "_trailing",
        "_values",
    )

    def __init__(
        self,
        algorithms: Iterable[str] = (),
        *,
        md5: bytes | None = None,
        payload_sha256: str | None = None,
        values: Mapping[str, str] = objects.EMPTY_MAP,
        trailing: tuple[str, ...] = (),
        shared_md5: hashing.SharedMd5 | None = None,
    ) -> None:
        self._shared_md5 = shared_md5
        self._md5: _Digest = shared_md5 or hashlib.md5(usedforsecurity=False)
        self._md5_wanted = md5
        self._checksums = {
            name: _FACTORIES[name]() for name in dict.fromkeys((*algorithms, *values, *trailing))
        }
        self._values = values
        self._trailing = trailing
        self._sha256_wanted = payload_sha256
        self._sha256: _Digest | None = None
        if payload_sha256 is not None:
            # A SHA-256 checksum of the same bytes need not be computed twice.
            self._sha256 = self._checksums.get("sha256") or hashlib.sha256()

    @classmethod
    def from_headers(
        cls,
        headers: Mapping[str, str],
        identity: request_identity.Identity,
        *,
        algorithms: Iterable[str] = (),
        is_checksummed: bool = True,
        shared_md5: hashing.SharedMd5 | None = None,
    ) -> Self:
        """The digester a request asks for.

        Args:
            headers: Case-insensitive, or names in lower case.
            identity: Of the same request.
            algorithms: Computed and reported even if the client gives no value.
            is_checksummed: False where the checksum headers do not speak of the body.
            shared_md5: See ``BodyDigester``.

        Raises:
            S3Error: InvalidDigest (Content-MD5 malformed), BadDigest (checksum malformed: it cannot
                match), InvalidRequest (checksum unknown, or more than one).
        """
        values = given(headers) if is_checksummed else {}
        trailing = _announced(headers.get("x-amz-trailer", ""))
        for name in _REFUSED_HEADERS:
            if name in headers:
                raise _unsupported()
        if len(values) + len(trailing) > 1:
            raise s3_error.make(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not"
                " allowed.",
            )
        for name, value in values.items():
            _require_well_formed(name, value)
        if trailing and identity.payload not in _WITH_TRAILERS:
            raise s3_error.make(
                "InvalidRequest", "x-amz-trailer needs a streaming payload with trailers."
            )
        _check_sdk_algorithm(headers.get("x-amz-sdk-checksum-algorithm"), (*values, *trailing))
        signed = identity.payload is request_identity.PayloadKind.SIGNED_SHA256
        return cls(
            algorithms,
            md5=_content_md5(headers.get("content-md5")),
            payload_sha256=identity.payload_sha256 if signed else None,
            values=values,
            trailing=trailing,
            shared_md5=shared_md5,
        )

    def begin_md5(self, views: Sequence[memoryview]) -> hashing.Ending | None:
        """Begin to take the next decoded bytes into the shared MD5, elsewhere.

        The rest of what is digested is left to ``update_others``. None: there is no shared MD5, and
        nothing has been done.
        """
        return None if self._shared_md5 is None else self._shared_md5.begin(views)

    @property
    def has_others(self) -> bool:
        """Whether anything but MD5 is computed."""
        return bool(self._checksums) or self._sha256 is not None

    def update(self, view: bytes | memoryview) -> None:
        """Take the next decoded bytes. The hashes release the GIL for long views."""
        self._md5.update(view)
        self.update_others(view)

    def update_others(self, view: bytes | memoryview) -> None:
        """Take the next decoded bytes into everything but MD5."""
        for checksum in self._checksums.values():
            checksum.update(view)
        if self._sha256 is not None and "sha256" not in self._checksums:
            self._sha256.update(view)

    def finish(self, trailers: Mapping[str, str]) -> objects.BodyDigests:
        """Compare with everything the client announced.

        Args:
            trailers: Names in lower case; empty for a body without.

        Raises:
            S3Error: BadDigest, XAmzContentSHA256Mismatch, MalformedTrailerError (a trailing
                checksum is missing).
        """
        if self._sha256 is not None and self._sha256_wanted is not None:
            computed = self._sha256.digest().hex()
            if not hmac.compare_digest(computed, self._sha256_wanted):
                raise s3_error.make(
                    "XAmzContentSHA256Mismatch",
                    ClientComputedContentSHA256=self._sha256_wanted,
                    S3ComputedContentSHA256=computed,
                )
        md5 = self._md5.digest()
        if self._md5_wanted is not None and not hmac.compare_digest(md5, self._md5_wanted):
            raise s3_error.make(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                ExpectedDigest=base64.b64encode(self._md5_wanted).decode("ascii"),
                CalculatedDigest=base64.b64encode(md5).decode("ascii"),
            )
        results: dict[str, str] = {}
        for name, checksum in self._checksums.items():
            result = base64.b64encode(checksum.digest()).decode("ascii")
            wanted = self._values.get(name)
            if name in self._trailing:
                wanted = trailers.get(_PREFIX + name)
                if wanted is None:
                    raise s3_error.make("MalformedTrailerError")
                _require_well_formed(name, wanted)
            if wanted is not None and wanted != result:
                raise s3_error.make(
                    "BadDigest",
                    f"The {name.upper()} you specified did not match the calculated checksum.",
                )
            results[name] = result
        return objects.BodyDigests(etag=md5.hex(), checksums=results or objects.EMPTY_MAP)


def given(headers: Mapping[str, str]) -> dict[str, str]:
    """The ``x-amz-checksum-*`` values of a request as sent, by algorithm."""
    values: dict[str, str] = {}
    for name, header in _HEADERS:
        value = headers.get(header)
        if value is not None:
            values[name] = value
    return values


def announced(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Algorithms whose value a request gives, up front or as a trailer.

    Raises:
        S3Error: InvalidRequest for one that is not served.
    """
    return (*given(headers), *_announced(headers.get("x-amz-trailer", "")))


_WITH_TRAILERS: Final = (
    request_identity.PayloadKind.STREAMING_SIGNED_TRAILER,
    request_identity.PayloadKind.STREAMING_UNSIGNED_TRAILER,
)


def _announced(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    found: list[str] = []
    for item in text.lower().split(","):
        item = item.strip()
        if item.startswith(_PREFIX):
            name = item.removeprefix(_PREFIX)
            if name not in ALGORITHMS:
                raise _unsupported()
            found.append(name)
    return tuple(found)


def _unsupported() -> s3_error.S3Error:
    return s3_error.make("InvalidRequest", "Checksum algorithm provided is unsupported.")


def _decoded(value: str, length_bytes: int) -> bytes | None:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != length_bytes or base64.b64encode(raw).decode("ascii") != value:
        return None
    return raw


def _require_well_formed(name: str, value: str) -> None:
    if _decoded(value, ALGORITHMS[name]) is None:
        raise s3_error.make("BadDigest", f"Value for {_PREFIX}{name} header is invalid.")


def _content_md5(value: str | None) -> bytes | None:
    if value is None:
        return None
    raw = _decoded(value.strip(), 16)
    if raw is None:
        raise s3_error.make("InvalidDigest", **{"Content-MD5": value})
    return raw


def _check_sdk_algorithm(value: str | None, given: tuple[str, ...]) -> None:
    if value is None:
        return
    name = value.lower()
    if name not in ALGORITHMS:
        raise s3_error.make(
            "InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid."
        )
    if not given:
        raise s3_error.make(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or"
            " x-amz-trailer headers were found.",
        )
    if name not in given:
        raise s3_error.make(
            "InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid."
        )
