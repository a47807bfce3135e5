"""Encodes the few x86-64 instructions that vector kernels here are made of.

Only what is used is known: 256-bit integer instructions of AVX2, two of AVX-512VL, and what a loop
needs. Encodings: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (2.3 for
VEX, 2.7 for EVEX). A memory operand is always written with a displacement of 32 bits, so that
every instruction has one length.
"""

from __future__ import annotations

import dataclasses
from typing import Final

RAX: Final = 0
RCX: Final = 1
RDX: Final = 2
RSI: Final = 6
RDI: Final = 7
R8: Final = 8
R9: Final = 9
R10: Final = 10
R11: Final = 11
"""Registers that a function may use without saving them (System V ABI)."""

_66: Final = 1
_F3: Final = 2
_0F: Final = 1
_0F3A: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class At:
    """The memory at ``base + index + offset``."""

    base: int
    offset: int = 0
    index: int | None = None


class Code:
    """Machine code that grows at its end. Vector registers are numbers from 0 to 15."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def here(self) -> int:
        """The place of the next instruction."""
        return len(self._bytes)

    # Vectors: 8 words of 32 bits, or their lower half.

    def load(self, to: int, source: At) -> None:
        """VMOVDQU: 32 bytes, at any address."""
        self._vex(0x6F, to, 0, source, prefix=_F3)

    def load_half(self, to: int, source: At) -> None:
        """VMOVDQU: 16 bytes into the lower half, the upper one becomes zero."""
        self._vex(0x6F, to, 0, source, prefix=_F3, is_wide=False)

    def insert_upper(self, to: int, rest: int, source: At) -> None:
        """VINSERTI128: 16 bytes into the upper half, the lower one is that of ``rest``."""
        self._vex(0x38, to, rest, source, table=_0F3A, immediate=1)

    def store(self, to: At, source: int) -> None:
        """VMOVDQU: 32 bytes, at any address."""
        self._vex(0x7F, source, 0, to, prefix=_F3)

    def copy(self, to: int, source: int) -> None:
        """VMOVDQU between registers."""
        self._vex(0x6F, to, 0, source, prefix=_F3)

    def add(self, to: int, one: int, other: int | At) -> None:
        """VPADDD."""
        self._vex(0xFE, to, one, other)

    def bit_and(self, to: int, one: int, other: int | At) -> None:
        """VPAND."""
        self._vex(0xDB, to, one, other)

    def and_not(self, to: int, inverted: int, other: int | At) -> None:
        """VPANDN: ``~inverted & other``."""
        self._vex(0xDF, to, inverted, other)

    def bit_or(self, to: int, one: int, other: int | At) -> None:
        """VPOR."""
        self._vex(0xEB, to, one, other)

    def bit_xor(self, to: int, one: int, other: int | At) -> None:
        """VPXOR."""
        self._vex(0xEF, to, one, other)

    def all_ones(self, to: int) -> None:
        """VPCMPEQD of a register with itself."""
        self._vex(0x76, to, to, to)

    def shift_left(self, to: int, source: int, bits: int) -> None:
        """VPSLLD."""
        self._vex(0x72, 6, to, source, immediate=bits)

    def shift_right(self, to: int, source: int, bits: int) -> None:
        """VPSRLD."""
        self._vex(0x72, 2, to, source, immediate=bits)

    def rotate_left(self, to: int, source: int, bits: int) -> None:
        """VPROLD, of AVX-512VL."""
        self._evex(0x72, 1, to, source, immediate=bits)

    def choose_bits(self, to: int, second: int, third: int, table: int) -> None:
        """VPTERNLOGD, of AVX-512VL: bit ``4 * to + 2 * second + third`` of the table, each bit."""
        self._evex(0x25, to, second, third, table=_0F3A, immediate=table)

    def mix_low_words(self, to: int, one: int, other: int) -> None:
        """VPUNPCKLDQ."""
        self._vex(0x62, to, one, other)

    def mix_high_words(self, to: int, one: int, other: int) -> None:
        """VPUNPCKHDQ."""
        self._vex(0x6A, to, one, other)

    def mix_low_pairs(self, to: int, one: int, other: int) -> None:
        """VPUNPCKLQDQ."""
        self._vex(0x6C, to, one, other)

    def mix_high_pairs(self, to: int, one: int, other: int) -> None:
        """VPUNPCKHQDQ."""
        self._vex(0x6D, to, one, other)

    def forget_upper_halves(self) -> None:
        """VZEROUPPER, before a return to code that may use SSE."""
        self._bytes += b"\xc5\xf8\x77"

    # Whole registers of 64 bits.

    def load_pointer(self, to: int, source: At) -> None:
        """MOV from memory."""
        self._long(0x8B, to, source)

    def address(self, to: int, of: At) -> None:
        """LEA."""
        self._long(0x8D, to, of)

    def exchange(self, one: int, other: int) -> None:
        """XCHG."""
        self._long(0x87, one, other)

    def clear(self, register: int) -> None:
        """XOR of a register with itself."""
        self._long(0x31, register, register)

    def compare(self, left: int, right: int) -> None:
        """CMP, for ``copy_if_above`` and the jumps."""
        self._long(0x39, right, left)

    def copy_if_above(self, to: int, source: int) -> None:
        """CMOVA: if the left of the last comparison, unsigned, was above its right."""
        self._long(0x0F47, to, source)

    def jump_if_not_above(self, place: int) -> None:
        """JBE to a place before."""
        self._bytes += b"\x0f\x86"
        self._bytes += (place - self.here() - 4).to_bytes(4, "little", signed=True)

    def end(self) -> None:
        """RET."""
        self._bytes.append(0xC3)

    def _vex(
        self,
        opcode: int,
        register: int,
        second: int,
        third: int | At,
        *,
        prefix: int = _66,
        table: int = _0F,
        is_wide: bool = True,
        immediate: int | None = None,
    ) -> None:
        base, index = _parts(third)
        self._bytes += bytes(
            (
                0xC4,
                (~register >> 3 & 1) << 7 | (~index >> 3 & 1) << 6 | (~base >> 3 & 1) << 5 | table,
                (~second & 15) << 3 | is_wide << 2 | prefix,
                opcode,
            )
        )
        self._operands(register, third, immediate)

    def _evex(
        self,
        opcode: int,
        register: int,
        second: int,
        third: int,
        *,
        table: int = _0F,
        immediate: int,
    ) -> None:
        # Of the 32 registers 16 are used here: the bits of the others are inverted zeros always.
        self._bytes += bytes(
            (
                0x62,
                (~register >> 3 & 1) << 7 | 1 << 6 | (~third >> 3 & 1) << 5 | 1 << 4 | table,
                (~second & 15) << 3 | 1 << 2 | _66,
                1 << 5 | 1 << 3,
                opcode,
            )
        )
        self._operands(register, third, immediate)

    def _long(self, opcode: int, register: int, other: int | At) -> None:
        base, index = _parts(other)
        self._bytes.append(0x48 | (register >> 3) << 2 | (index >> 3) << 1 | base >> 3)
        self._bytes += opcode.to_bytes(1 + (opcode > 0xFF), "big")
        self._operands(register, other, None)

    def _operands(self, register: int, other: int | At, immediate: int | None) -> None:
        low = (register & 7) << 3
        if isinstance(other, int):
            self._bytes.append(0xC0 | low | other & 7)
        else:
            if other.index is None and other.base & 7 != 4:
                self._bytes.append(0x80 | low | other.base & 7)
            else:
                # An index of four is none.
                index = 4 if other.index is None else other.index & 7
                self._bytes += bytes((0x84 | low, index << 3 | other.base & 7))
            self._bytes += other.offset.to_bytes(4, "little", signed=True)
        if immediate is not None:
            self._bytes.append(immediate)


def _parts(operand: int | At) -> tuple[int, int]:
    """The registers whose fourth bits go into the base's and the index's place of a prefix."""
    if isinstance(operand, int):
        return operand, 0
    return operand.base, operand.index or 0
