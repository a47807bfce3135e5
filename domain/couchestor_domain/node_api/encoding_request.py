"""A volume that a node is to encode, and what became of that."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from couchestor_domain import errors, geometry, units
from couchestor_domain.node_api import fields

BYTES_MAX = 64 * units.KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingRequest:
    """Asks a node to encode a volume that has become cold."""

    volume: str
    generation: int
    """How often the volume has been handed over, this time included. From 1."""
    size_bytes: int
    policy: str
    """Name of the ErasureCodingPolicy."""
    coding: geometry.StripeGeometry
    stripe_bytes: int


class EncodingPhase(enum.Enum):
    """How far a node has come."""

    ACCEPTED = "Accepted"
    ENCODING = "Encoding"
    ENCODED = "Encoded"
    FAILED = "Failed"
    """For good; the volume is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingState:
    """What a node says of a volume that it was asked to encode."""

    volume: str
    generation: int
    phase: EncodingPhase
    encoded_bytes: int
    reason: str
    """Why it failed; else empty."""


def encode(request: EncodingRequest) -> bytes:
    """As it is sent."""
    return fields.written(
        "EncodingRequest",
        {
            "volume": request.volume,
            "generation": request.generation,
            "size_bytes": request.size_bytes,
            "policy": request.policy,
            "data_shards": request.coding.data_shards,
            "parity_shards": request.coding.parity_shards,
            "stripe_bytes": request.stripe_bytes,
        },
    )


def decode(body: bytes | bytearray) -> EncodingRequest:
    """A request as another machine sent it.

    Raises:
        NodeRecordError: it does not fit, or contradicts itself.
    """
    read = fields.opened(body, kind="EncodingRequest", bytes_max=BYTES_MAX)
    try:
        coding = geometry.StripeGeometry(
            read.count("data_shards", least=1), read.count("parity_shards", least=1)
        )
    except errors.InvalidEcConfigurationError as exc:
        read.refuse("data_shards", f"and parity_shards are impossible: {exc}")
    found = EncodingRequest(
        volume=read.name("volume"),
        generation=read.count("generation", least=1),
        size_bytes=read.count("size_bytes", least=1),
        policy=read.name("policy"),
        coding=coding,
        stripe_bytes=read.count("stripe_bytes", least=units.BLOCK_BYTES),
    )
    read.end()
    if found.stripe_bytes % units.BLOCK_BYTES:
        read.refuse("stripe_bytes", f"is not a multiple of {units.BLOCK_BYTES}")
    return found


def encode_state(state: EncodingState) -> bytes:
    """As it is sent."""
    return fields.written(
        "EncodingState",
        {
            "volume": state.volume,
            "generation": state.generation,
            "phase": state.phase.value,
            "encoded_bytes": state.encoded_bytes,
            "reason": state.reason,
        },
    )


def decode_state(body: bytes | bytearray) -> EncodingState:
    """A state as another machine sent it.

    Raises:
        NodeRecordError: it does not fit.
    """
    read = fields.opened(body, kind="EncodingState", bytes_max=BYTES_MAX)
    found = EncodingState(
        volume=read.name("volume"),
        generation=read.count("generation", least=1),
        phase=read.choice("phase", EncodingPhase),
        encoded_bytes=read.count("encoded_bytes"),
        reason=read.text("reason"),
    )
    read.end()
    return found
