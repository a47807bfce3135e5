"""Sizes and the conversions between them. Units end every name: ``_bytes``, ``_ns``, ``_count``."""

from __future__ import annotations

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

BLOCK_BYTES: Final = 4 * KIB
"""Alignment of every offset and length on media: suits O_DIRECT, 4Kn drives and ZNS."""

NS_PER_SECOND: Final = 1_000_000_000


def align_up(value: int, alignment: int) -> int:
    """Smallest multiple of ``alignment`` (a power of two) that is not below ``value``."""
    return (value + alignment - 1) & ~(alignment - 1)


def align_down(value: int, alignment: int) -> int:
    """Largest multiple of ``alignment`` (a power of two) that is not above ``value``."""
    return value & ~(alignment - 1)


def ceil_div(value: int, divisor: int) -> int:
    """``value / divisor`` rounded up, for non-negative integers."""
    return -(-value // divisor)
