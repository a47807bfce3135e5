"""Which codec serves a policy, and which one reads what a shard header names."""

from __future__ import annotations

import functools
import logging
from typing import Final

from couchestor_daemon.adapters import isal_codec, pyeclib_codec
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors, geometry, units

REED_SOLOMON: Final = "rs"
LOCAL_RECONSTRUCTION: Final = "lrc"

_log = logging.getLogger("couchestor.codec")


@functools.lru_cache(maxsize=1024)
def choose(policy_name: str, shape: geometry.StripeGeometry) -> codec_port.EcCodec:
    """Codec for new stripes: the same object for the same arguments.

    ``rs`` is ISA-L, or pyeclib with one warning where ISA-L does not load. ``lrc`` needs data
    shards in two equal groups; a geometry it cannot have (e.g. a group shrunk to the healthy
    devices) is coded with ``rs``, which tolerates no less.

    Raises:
        EcPolicyNotFoundError: neither ``rs`` nor ``lrc``.
    """
    if policy_name == LOCAL_RECONSTRUCTION:
        try:
            return pyeclib_codec.PyeclibCodec(pyeclib_codec.CodecKind.LRC, shape)
        except errors.InvalidEcConfigurationError as exc:
            _log.warning("%s; stripes of this shape use Reed-Solomon instead", exc)
            return choose(REED_SOLOMON, shape)
    if policy_name != REED_SOLOMON:
        raise errors.EcPolicyNotFoundError(
            f"there is no codec {policy_name!r}: use {REED_SOLOMON!r} or {LOCAL_RECONSTRUCTION!r}",
            policy=policy_name,
        )
    if _isal_loads():
        return isal_codec.IsalCodec(shape)
    if pyeclib_codec.is_available(pyeclib_codec.CodecKind.RS_CAUCHY):
        return pyeclib_codec.PyeclibCodec(pyeclib_codec.CodecKind.RS_CAUCHY, shape)
    return pyeclib_codec.PyeclibCodec(pyeclib_codec.CodecKind.RS_VAND, shape)


def inline_bytes_max(policy_name: str) -> int:
    """User bytes of the longest stripe that an event loop should encode itself.

    ISA-L encodes and checksums 1 MiB in some 70 us of one core (4+2, AVX-512); pyeclib copies, and
    goes to a thread always.
    """
    return units.MIB if policy_name == REED_SOLOMON and _isal_loads() else 0


@functools.lru_cache(maxsize=1024)
def by_id(shape: geometry.StripeGeometry, codec_id: int) -> codec_port.EcCodec:
    """Codec that decodes shards written with ``codec_id``: the same object for the same arguments.

    Raises:
        InvalidEcConfigurationError: an unknown id, or its backend is missing here.
    """
    if codec_id == isal_codec.CODEC_ID and _isal_loads():
        return isal_codec.IsalCodec(shape)
    try:
        kind = pyeclib_codec.CodecKind(codec_id)
    except ValueError as exc:
        raise errors.InvalidEcConfigurationError(
            f"codec {codec_id} is unknown to this version: a newer one wrote these stripes",
            codec_id=codec_id,
        ) from exc
    return pyeclib_codec.PyeclibCodec(kind, shape)


@functools.cache
def _isal_loads() -> bool:
    # Cached, so that the warning appears once per process.
    try:
        isal_codec.load_library()
    except errors.IsalEncodingError as exc:
        _log.warning("ISA-L is not usable (%s): coding runs through pyeclib, slower", exc)
        return False
    return True
