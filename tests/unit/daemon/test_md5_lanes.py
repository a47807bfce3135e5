"""MD5 of several messages at once: the same as OpenSSL's, whatever comes together and when."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import itertools
import pathlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couchestor_daemon.adapters import machine_code, md5_code, md5_lanes

FEATURES: Final = machine_code.processor_features()
VARIANTS: Final = {
    False: frozenset({"avx2"}),
    True: md5_lanes.AVX512_FEATURES,
}
LENGTHS: Final = st.one_of(st.integers(0, 200), st.integers(0, 20_000))


def function(with_avx512: bool) -> md5_lanes.Kernel:
    missing = VARIANTS[with_avx512] - FEATURES
    if missing:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    return md5_lanes.loaded(with_avx512=with_avx512)


@pytest.fixture(params=VARIANTS, ids=["avx2", "avx512"])
def kernel(request: pytest.FixtureRequest) -> md5_lanes.Kernel:
    """Each variant that can be run here."""
    return function(request.param)


@pytest.fixture
def lanes(kernel: md5_lanes.Kernel) -> Iterator[md5_lanes.Md5Lanes]:
    """Ended at the end."""
    made = md5_lanes.Md5Lanes(kernel)
    yield made
    made.close()


def expected(message: bytes) -> bytes:
    return hashlib.md5(message, usedforsecurity=False).digest()


def test_every_length_around_a_block(lanes: md5_lanes.Md5Lanes) -> None:
    for length in range(300):
        message = random.Random(length).randbytes(length)
        stream = lanes.new()
        stream.update(message)
        assert stream.digest() == expected(message), length
        assert stream.digest() == expected(message), "asking changes nothing"


@pytest.mark.parametrize("with_avx512", VARIANTS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_messages_cut_anyhow_and_hashed_together_come_out_as_alone(
    with_avx512: bool, data: st.DataObject
) -> None:
    made = md5_lanes.Md5Lanes(function(with_avx512))
    seed = data.draw(st.integers(0, 2**32))
    lengths = data.draw(st.lists(LENGTHS, min_size=1, max_size=20))
    cuts = [sorted(data.draw(st.lists(st.integers(0, each), max_size=4))) for each in lengths]

    async def hashed(message: bytes, places: list[int], order: random.Random) -> bytes:
        stream = made.new()
        whole = memoryview(message)
        edges = [0, *places, len(message)]
        pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
        while pieces:
            count = order.randint(1, len(pieces))
            if order.random() < 0.3:
                for piece in pieces[:count]:
                    stream.update(piece)
            else:
                await stream.begin(pieces[:count]).wait()
            del pieces[:count]
        return stream.digest()

    async def all_hashed() -> list[bytes]:
        order = random.Random(seed)
        return await asyncio.gather(
            *(hashed(each, places, order) for each, places in zip(messages, cuts, strict=True))
        )

    messages = [random.Random(seed + at).randbytes(each) for at, each in enumerate(lengths)]
    try:
        assert asyncio.run(all_hashed()) == [expected(each) for each in messages]
    finally:
        made.close()


async def test_long_messages_give_way_to_those_that_come_later(
    lanes: md5_lanes.Md5Lanes,
) -> None:
    """More than fit, and longer than one call takes."""
    call_bytes = md5_lanes.CALL_BLOCKS_MAX * md5_code.BLOCK_BYTES
    messages = [random.Random(at).randbytes(call_bytes * 2 + at * 1000) for at in range(11)]
    streams = [lanes.new() for _ in messages]
    endings = [
        stream.begin([memoryview(message)])
        for stream, message in zip(streams, messages, strict=True)
    ]
    for ending in endings:
        await ending.wait()
    assert [stream.digest() for stream in streams] == [expected(each) for each in messages]


def test_nothing_beyond_a_message_is_read(kernel: md5_lanes.Kernel) -> None:
    """It ends where memory does; in a process of its own, because a read beyond ends that."""
    del kernel
    program = """
import ctypes, hashlib, mmap, sys
from couchestor_daemon.adapters import md5_lanes
libc = ctypes.CDLL(None, use_errno=True)
lanes = md5_lanes.Md5Lanes(md5_lanes.loaded(with_avx512=sys.argv[1] == "True"))
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(start + 2 * page), page, 0) == 0, ctypes.get_errno()
for length in (1, 63, 64, 65, 128, 1000, page, 2 * page):
    view = memoryview(memory)[2 * page - length : 2 * page]
    view[:] = bytes(index * 5 % 251 for index in range(length))
    stream = lanes.new()
    stream.update(view)
    assert stream.digest() == hashlib.md5(view).digest(), length
print("read")
"""
    for with_avx512, needed in VARIANTS.items():
        if needed <= FEATURES:
            ran = subprocess.run(
                [sys.executable, "-c", program, str(with_avx512)],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (ran.returncode, ran.stdout) == (0, "read\n"), ran.stderr


def test_code_is_never_writable(kernel: md5_lanes.Kernel) -> None:
    del kernel
    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    of_code = [line.split()[1] for line in maps if "couchestor-code" in line]
    assert of_code
    assert set(of_code) == {"r-xp"}


def test_a_process_that_may_not_make_memory_executable_has_it_all_the_same(
    kernel: md5_lanes.Kernel,
) -> None:
    """As systemd's MemoryDenyWriteExecute= has it; PR_SET_MDWE is Linux 6.3's own."""
    del kernel
    program = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0) != 0:
    print("no MDWE")
    raise SystemExit
try:
    mmap.mmap(-1, 4096, prot=7)
except PermissionError:
    pass
else:
    raise SystemExit("the ban does not act")
from couchestor_daemon.adapters import md5_lanes
md5_lanes.kernel()
print("tested")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    if ran.stdout == "no MDWE\n":
        pytest.skip("the kernel is older than 6.3")
    assert ran.stdout == "tested\n"


def test_a_function_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if "avx2" not in FEATURES:
        pytest.skip("this processor has no avx2")
    right = md5_lanes.loaded

    def wrong(*, with_avx512: bool) -> md5_lanes.Kernel:
        run = right(with_avx512=with_avx512)
        # The last block is left out when there are several.
        return lambda state, messages, blocks, frame: run(
            state, messages, max(1, blocks - 1), frame
        )

    monkeypatch.setattr(md5_lanes, "loaded", wrong)
    with pytest.raises(machine_code.MachineCodeError, match="came out wrong"):
        md5_lanes.kernel()


@pytest.mark.parametrize("features", [frozenset(), frozenset({"sse2", "avx"})])
def test_without_avx2_there_is_none(
    monkeypatch: pytest.MonkeyPatch, features: frozenset[str]
) -> None:
    monkeypatch.setattr(machine_code, "processor_features", lambda: features)
    with pytest.raises(machine_code.MachineCodeError, match="no AVX2"):
        md5_lanes.kernel()


class Held:
    """A function that hashes nothing, and only when it is let."""

    def __init__(self) -> None:
        self.is_called = threading.Event()
        self.may_end = threading.Event()
        self.blocks: list[int] = []

    def __call__(self, state: int, messages: int, blocks: int, frame: int) -> None:
        self.blocks.append(blocks)
        self.is_called.set()
        assert self.may_end.wait(30)


async def test_who_is_cancelled_gets_memory_back_only_when_it_is_read_no_more() -> None:
    held = Held()
    lanes = md5_lanes.Md5Lanes(held)
    try:
        first = asyncio.create_task(lanes.new().begin([memoryview(bytes(64))]).wait())
        await asyncio.to_thread(held.is_called.wait, 30)
        later = asyncio.create_task(lanes.new().begin([memoryview(bytes(64))]).wait())
        await asyncio.sleep(0)
        for task in (first, later):
            task.cancel()
        # What has not begun is given up at once; what has is waited for, however often it is told.
        await asyncio.wait([later], timeout=30)
        assert later.cancelled()
        first.cancel()
        _, pending = await asyncio.wait([first], timeout=0.05)
        assert pending
        held.may_end.set()
        await asyncio.wait([first], timeout=30)
        assert first.cancelled()
    finally:
        held.may_end.set()
        await asyncio.to_thread(lanes.close)
    assert held.blocks == [1], "nobody wanted the other"


async def test_a_call_that_fails_is_told_to_who_waits_and_others_go_on(
    kernel: md5_lanes.Kernel,
) -> None:
    calls = 0

    def fails_once(state: int, messages: int, blocks: int, frame: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise MemoryError("no room for a call")
        kernel(state, messages, blocks, frame)

    lanes = md5_lanes.Md5Lanes(fails_once)
    message = random.Random(2).randbytes(10_000)
    try:
        with pytest.raises(MemoryError, match="no room"):
            await lanes.new().begin([memoryview(message)]).wait()
        stream = lanes.new()
        await stream.begin([memoryview(message)]).wait()
        assert stream.digest() == expected(message)
    finally:
        await asyncio.to_thread(lanes.close)


async def test_closing_ends_what_was_sent_and_takes_no_more(kernel: md5_lanes.Kernel) -> None:
    lanes = md5_lanes.Md5Lanes(kernel)
    message = random.Random(1).randbytes(3_000_000)
    stream = lanes.new()
    ending = stream.begin([memoryview(message)])
    await asyncio.to_thread(lanes.close)
    await ending.wait()
    assert stream.digest() == expected(message)
    with pytest.raises(RuntimeError):
        lanes.new().begin([memoryview(bytes(64))])
    await asyncio.to_thread(lanes.close)


def test_a_frame_holds_each_constant_for_every_lane() -> None:
    words = (ctypes.c_uint32 * (64 * md5_code.LANES_COUNT)).from_buffer_copy(md5_code.frame_start())
    # The first and the last of RFC 1321's table T.
    assert list(words[:8]) == [0xD76AA478] * 8
    assert list(words[-8:]) == [0xEB86D391] * 8
