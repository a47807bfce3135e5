"""Encodings, as binutils' disassembler reads them (objdump -b binary -m i386:x86-64 -M intel)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from couchestor_daemon.adapters import x86_code
from couchestor_daemon.adapters.x86_code import R8, R9, R10, R11, RAX, RCX, RDX, RSI, At

Written = Callable[[x86_code.Code], None]

CASES: dict[str, tuple[Written, str]] = {
    "vmovdqu ymm4,[r11+0x20]": (
        lambda code: code.load(4, At(R11, 0x20)),
        "c4c17e6fa320000000",
    ),
    "vmovdqu ymm5,ymm1": (lambda code: code.copy(5, 1), "c4e17e6fe9"),
    "vmovdqu xmm7,[rax+r10*1]": (
        lambda code: code.load_half(7, At(RAX, 0, R10)),
        "c4a17a6fbc1000000000",
    ),
    "vinserti128 ymm7,ymm7,[rax+r10*1],1": (
        lambda code: code.insert_upper(7, 7, At(RAX, 0, R10)),
        "c4a34538bc100000000001",
    ),
    "vmovdqu [r9+0x60],ymm10": (
        lambda code: code.store(At(R9, 0x60), 10),
        "c4417e7f9160000000",
    ),
    "vpaddd ymm4,ymm4,[rcx+0x20]": (
        lambda code: code.add(4, 4, At(RCX, 0x20)),
        "c4e15dfea120000000",
    ),
    "vpaddd ymm0,ymm0,ymm4": (lambda code: code.add(0, 0, 4), "c4e17dfec4"),
    "vpternlogd ymm5,ymm2,ymm3,0xca": (
        lambda code: code.choose_bits(5, 2, 3, 0xCA),
        "62f36d2825ebca",
    ),
    "vprold ymm3,ymm3,0xc": (lambda code: code.rotate_left(3, 3, 12), "62f1652872cb0c"),
    "mov rax,[rsi+0x8]": (
        lambda code: code.load_pointer(RAX, At(RSI, 8)),
        "488b8608000000",
    ),
    "lea r10,[r8+0x40]": (lambda code: code.address(R10, At(R8, 64)), "4d8d9040000000"),
    "cmp r10,rdx": (lambda code: code.compare(R10, RDX), "4939d2"),
    "cmova r10,rdx": (lambda code: code.copy_if_above(R10, RDX), "4c0f47d2"),
    "ret": (lambda code: code.end(), "c3"),
}


@pytest.mark.parametrize("text", CASES)
def test_an_instruction_is_written_as_disassemblers_read_it(text: str) -> None:
    write, expected = CASES[text]
    code = x86_code.Code()
    write(code)
    assert bytes(code).hex() == expected


def test_a_jump_goes_back_to_its_place() -> None:
    code = x86_code.Code()
    code.end()
    place = code.here()
    code.end()
    code.jump_if_not_above(place)
    # From behind the jump, whose distance is its last four bytes.
    assert code.here() + int.from_bytes(bytes(code)[-4:], "little", signed=True) == place
