"""Machine code that takes MD5 (RFC 1321) of eight messages at once, one in each lane of a vector.

MD5 is a chain: each of the 64 steps of a block waits for the one before. One message leaves most
of a processor idle, and eight take little longer than one. The words of the next block are brought
into lanes between the steps of the current one, which wait for each other anyway.

``void digest(uint32_t state[4][8], const uint8_t *messages[8], uint64_t blocks, void *frame)``
takes at least one block of 64 bytes of each message, and reads nothing beyond them.

Frame, aligned to 32 bytes, one for each call under way:

    +----------------------------------+ 0
    | the 64 constants, each 8 times   |
    +----------------------------------+ 2048
    | words of a block: 16 of 8 lanes  |
    +----------------------------------+ 2560
    | words of the next block          |
    +----------------------------------+ 3072
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator
from typing import Final

from couchestor_daemon.adapters import x86_code

LANES_COUNT: Final = 8
BLOCK_BYTES: Final = 64
FRAME_BYTES: Final = 3072
START: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)

_ROW_BYTES: Final = 4 * LANES_COUNT
_WORDS_OFFSET: Final = 64 * _ROW_BYTES
_HALF_BYTES: Final = 16 * _ROW_BYTES
_SHIFTS: Final = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
_WORDS: Final = ((1, 0), (5, 1), (3, 5), (7, 0))
"""For each round: step ``i`` takes word ``factor * i + first``, modulo 16."""

_STATE, _MESSAGES, _LAST, _FRAME = x86_code.RDI, x86_code.RSI, x86_code.RDX, x86_code.RCX
_NOW, _NEXT = x86_code.R8, x86_code.R10
_READ, _WRITE = x86_code.R11, x86_code.R9
_POINTER: Final = x86_code.RAX

_SUM, _SCRATCH, _ONES = 4, 5, 6
_ROWS: Final = (7, 8, 9, 10)
_MIXED: Final = (11, 12, 13, 14)
_BETWEEN_STEPS: Final = 2


def frame_start() -> bytes:
    """What the frame of a call begins with; the rest of it may hold anything."""
    constants = (int(abs(math.sin(step + 1)) * 2**32) for step in range(64))
    return b"".join(struct.pack("<I", each) * LANES_COUNT for each in constants)


def kernel(*, with_avx512: bool) -> bytes:
    """The function, position independent.

    Args:
        with_avx512: Use two instructions of AVX-512VL; the rest needs AVX2.
    """
    code = x86_code.Code()
    state = [x86_code.At(_STATE, _ROW_BYTES * row) for row in range(4)]
    # The offset of the last block, so that nothing after it is ever read.
    for _ in range(6):
        code.address(_LAST, x86_code.At(_LAST, 0, _LAST))
    code.address(_LAST, x86_code.At(_LAST, -BLOCK_BYTES))
    code.clear(_NOW)
    code.clear(_NEXT)
    code.address(_READ, x86_code.At(_FRAME, _WORDS_OFFSET))
    code.address(_WRITE, x86_code.At(_FRAME, _WORDS_OFFSET))
    for _ in _to_lanes(code):
        pass
    code.address(_WRITE, x86_code.At(_FRAME, _WORDS_OFFSET + _HALF_BYTES))
    if not with_avx512:
        code.all_ones(_ONES)
    for row in range(4):
        code.load(row, state[row])
    loop = code.here()
    code.address(_NEXT, x86_code.At(_NOW, BLOCK_BYTES))
    code.compare(_NEXT, _LAST)
    code.copy_if_above(_NEXT, _LAST)
    waiting = _to_lanes(code)
    a, b, c, d = range(4)
    for step in range(64):
        _step(code, step, (a, b, c, d), with_avx512=with_avx512)
        a, b, c, d = d, a, b, c
        for _ in itertools.islice(waiting, _BETWEEN_STEPS):
            pass
    for _ in waiting:
        pass
    # After 64 steps each is in its own register again.
    for row in range(4):
        code.add(row, row, state[row])
        code.store(state[row], row)
    code.exchange(_READ, _WRITE)
    code.address(_NOW, x86_code.At(_NOW, BLOCK_BYTES))
    code.compare(_NOW, _LAST)
    code.jump_if_not_above(loop)
    code.forget_upper_halves()
    code.end()
    return bytes(code)


def _step(
    code: x86_code.Code, step: int, registers: tuple[int, int, int, int], *, with_avx512: bool
) -> None:
    """``a = b + rotated(a + F(b, c, d) + word + constant)``; ``b`` is what is waited for."""
    a, b, _, _ = registers
    number, within = divmod(step, 16)
    factor, first = _WORDS[number]
    word = (factor * step + first) % 16
    code.load(_SUM, x86_code.At(_READ, _ROW_BYTES * word))
    code.add(_SUM, _SUM, x86_code.At(_FRAME, _ROW_BYTES * step))
    code.add(a, a, _SUM)
    (_mixed_by_table if with_avx512 else _mixed_by_hand)(code, number, registers)
    code.add(a, a, _SCRATCH)
    bits = _SHIFTS[number][within % 4]
    if with_avx512:
        code.rotate_left(a, a, bits)
    else:
        code.shift_right(_SCRATCH, a, 32 - bits)
        code.shift_left(a, a, bits)
        code.bit_or(a, a, _SCRATCH)
    code.add(a, a, b)


def _mixed_by_table(code: x86_code.Code, number: int, registers: tuple[int, int, int, int]) -> None:
    _, b, c, d = registers
    functions: tuple[Callable[[int, int, int], int], ...] = (
        lambda x, y, z: x & y | ~x & z,
        lambda x, y, z: x & z | y & ~z,
        lambda x, y, z: x ^ y ^ z,
        lambda x, y, z: y ^ (x | ~z),
    )
    table = sum(
        (functions[number](bit >> 2 & 1, bit >> 1 & 1, bit & 1) & 1) << bit for bit in range(8)
    )
    code.copy(_SCRATCH, b)
    code.choose_bits(_SCRATCH, c, d, table)


def _mixed_by_hand(code: x86_code.Code, number: int, registers: tuple[int, int, int, int]) -> None:
    a, b, c, d = registers
    match number:
        case 0:
            code.bit_xor(_SCRATCH, c, d)
            code.bit_and(_SCRATCH, _SCRATCH, b)
            code.bit_xor(_SCRATCH, _SCRATCH, d)
        case 1:
            # The two terms share no bit: what does not wait for b is added before.
            code.and_not(_SCRATCH, d, c)
            code.add(a, a, _SCRATCH)
            code.bit_and(_SCRATCH, d, b)
        case 2:
            code.bit_xor(_SCRATCH, c, d)
            code.bit_xor(_SCRATCH, _SCRATCH, b)
        case _:
            code.bit_xor(_SCRATCH, d, _ONES)
            code.bit_or(_SCRATCH, _SCRATCH, b)
            code.bit_xor(_SCRATCH, _SCRATCH, c)


def _to_lanes(code: x86_code.Code) -> Iterator[None]:
    """Bring the words of the block at ``_NEXT`` into lanes, at ``_WRITE``; one instruction is
    written each time that the iterator is asked to go on.

    Four words at a time: lane ``i`` in the lower half beside lane ``i + 4``, then the two halves
    are turned from four rows of four words into four columns at once.
    """
    r0, r1, r2, r3 = _ROWS
    m0, m1, m2, m3 = _MIXED
    for quad in range(4):
        source = x86_code.At(_POINTER, 16 * quad, _NEXT)
        for lane, row in enumerate(_ROWS):
            code.load_pointer(_POINTER, x86_code.At(_MESSAGES, 8 * lane))
            yield
            code.load_half(row, source)
            yield
            code.load_pointer(_POINTER, x86_code.At(_MESSAGES, 8 * (lane + 4)))
            yield
            code.insert_upper(row, row, source)
            yield
        code.mix_low_words(m0, r0, r1)
        yield
        code.mix_high_words(m1, r0, r1)
        yield
        code.mix_low_words(m2, r2, r3)
        yield
        code.mix_high_words(m3, r2, r3)
        yield
        code.mix_low_pairs(r0, m0, m2)
        yield
        code.mix_high_pairs(r1, m0, m2)
        yield
        code.mix_low_pairs(r2, m1, m3)
        yield
        code.mix_high_pairs(r3, m1, m3)
        yield
        for word, row in enumerate(_ROWS):
            code.store(x86_code.At(_WRITE, _ROW_BYTES * (4 * quad + word)), row)
            yield
