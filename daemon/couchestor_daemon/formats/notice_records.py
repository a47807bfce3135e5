"""Notices that wait for their targets, as the index holds them.

    n  target, NUL, sequence u64    a notice: a version byte, then a MessagePack array of its fields
    t  target                       totals: notices that wait u64, notices that were lost u64
    m  "notice"                     sequence of the last notice (u64), of all targets

The sequence orders the notices of a target as their commits are ordered. A target without a notice
that waits or was lost has no totals.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec

from couchestor_daemon.formats import index_keys, media_records
from couchestor_domain import errors, notices

SEQUENCE_KEY: Final = media_records.META + b"notice"

_VERSION: Final = b"\x01"
_TOTALS: Final = struct.Struct("<QQ")
_SEQUENCE: Final = struct.Struct(">Q")


class Totals(NamedTuple):
    """What is known of a target without looking at its notices."""

    waiting_count: int = 0
    lost_count: int = 0
    """Not kept, because too many were waiting."""


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    """A field is only ever added at the end, with a default."""

    configuration_id: str
    event: str
    time_ns: int
    bucket: str
    key: str
    size_bytes: int | None
    etag: str
    version_id: str
    requester: str
    source_ip: str
    request_id: str
    host_id: str
    region: str
    bucket_owner: str


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Stored)


def key(target: str, sequence: int) -> bytes:
    """Key of a notice."""
    return _prefix(target) + _SEQUENCE.pack(sequence)


def target_range(target: str) -> tuple[bytes, bytes]:
    """First possible key of a target's notices, and the first one behind them."""
    return _prefix(target), _prefix(target)[:-1] + b"\x01"


def totals_key(target: str) -> bytes:
    """Key of a target's totals."""
    return index_keys.NOTICE_TOTALS + target.encode()


def target_of_totals(key: bytes) -> str:
    """The target in a key made by ``totals_key``."""
    return key[1:].decode()


def place_of(key: bytes) -> tuple[str, int]:
    """Target and sequence in a key made by ``key``."""
    return key[1 : -_SEQUENCE.size - 1].decode(), int(_SEQUENCE.unpack(key[-_SEQUENCE.size :])[0])


def pack(notice: notices.Notice) -> bytes:
    """Everything of a notice that its key does not say."""
    cause = notice.cause
    stored = _Stored(
        configuration_id=notice.configuration_id,
        event=notice.event,
        time_ns=notice.time_ns,
        bucket=notice.bucket,
        key=notice.key,
        size_bytes=notice.size_bytes,
        etag=notice.etag,
        version_id=notice.version_id,
        requester=cause.requester,
        source_ip=cause.source_ip,
        request_id=cause.request_id,
        host_id=cause.host_id,
        region=cause.region,
        bucket_owner=cause.bucket_owner,
    )
    return _VERSION + _ENCODER.encode(stored)


def unpack(key: bytes, value: bytes) -> notices.Notice:
    """A notice of the index. Raises IndexCorruptError."""
    target, sequence = place_of(key)
    try:
        if value[:1] != _VERSION:
            raise msgspec.ValidationError(f"unknown version {value[:1]!r}")
        stored = _DECODER.decode(memoryview(value)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise errors.IndexCorruptError(
            f"the index holds a notice {sequence} for {target} that cannot be read: {exc}; "
            "run `couchestor recover`"
        ) from exc
    return notices.Notice(
        sequence=sequence,
        target=target,
        configuration_id=stored.configuration_id,
        event=stored.event,
        time_ns=stored.time_ns,
        bucket=stored.bucket,
        key=stored.key,
        size_bytes=stored.size_bytes,
        etag=stored.etag,
        version_id=stored.version_id,
        cause=notices.Cause(
            requester=stored.requester,
            source_ip=stored.source_ip,
            request_id=stored.request_id,
            host_id=stored.host_id,
            region=stored.region,
            bucket_owner=stored.bucket_owner,
        ),
    )


def pack_totals(totals: Totals) -> bytes:
    """Totals as they are stored."""
    return _TOTALS.pack(*totals)


def unpack_totals(value: bytes | None) -> Totals:
    """Stored totals; zeros where there are none. Raises IndexCorruptError."""
    if value is None:
        return Totals()
    if len(value) != _TOTALS.size:
        raise errors.IndexCorruptError(
            f"the index holds totals of notices in {len(value)} bytes; run `couchestor recover`"
        )
    return Totals(*_TOTALS.unpack(value))


def _prefix(target: str) -> bytes:
    return index_keys.NOTICES + target.encode() + b"\x00"
