"""Bodies whose end only HTTP tells: as long as they come, and no longer than is allowed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from couchestor_domain import errors
from couchestor_gateway.edge import request_body
from couchestor_gateway.protocol import digests

LONGEST = 1000


class Content:
    """The part of aiohttp's stream that a body uses."""

    def __init__(self, pieces: Sequence[bytes], *, breaks: bool = False) -> None:
        self._pieces = list(pieces)
        self._breaks = breaks
        self.total_bytes = sum(map(len, pieces))

    def at_eof(self) -> bool:
        return not self._pieces and not self._breaks

    async def readchunk(self) -> tuple[bytes, bool]:
        if not self._pieces and self._breaks:
            raise ConnectionResetError
        return (self._pieces.pop(0), True) if self._pieces else (b"", False)


async def offload(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def body_of(
    *pieces: bytes, may_end_early: bool = True, breaks: bool = False
) -> request_body.RequestBody:
    return request_body.RequestBody(
        Content(pieces, breaks=breaks),
        size_bytes=LONGEST,
        decoder=None,
        digester=digests.BodyDigester(),
        offload=offload,
        stall_seconds=5.0,
        may_end_early=may_end_early,
    )


async def read(body: request_body.RequestBody) -> tuple[bytes, str]:
    """All of it, as the store reads, and its ETag."""
    buffer = bytearray(LONGEST)
    count = await body.readinto(memoryview(buffer)[:300], memoryview(buffer)[300:])
    return bytes(buffer[:count]), (await body.finish()).etag


@pytest.mark.parametrize("size_bytes", [0, 1, 299, 300, 301, LONGEST])
def test_it_is_as_long_as_it_came(size_bytes: int) -> None:
    content = bytes(range(250)) * 4
    pieces = [content[at : min(at + 70, size_bytes)] for at in range(0, size_bytes, 70)]
    found, etag = asyncio.run(read(body_of(*pieces)))
    assert found == content[:size_bytes]
    assert etag == hashlib.md5(content[:size_bytes]).hexdigest()


def test_one_byte_too_many_is_told() -> None:
    with pytest.raises(errors.BodyTooLongError):
        asyncio.run(read(body_of(bytes(LONGEST), b"x")))


def test_one_that_is_cut_off_is_no_short_one() -> None:
    with pytest.raises(errors.BodyTruncatedError):
        asyncio.run(read(body_of(b"half", breaks=True)))
    with pytest.raises(errors.BodyTruncatedError):
        asyncio.run(read(body_of(b"half", may_end_early=False)))


class SharedMd5:
    """Notes what it is given; ends when it is let."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.may_end = asyncio.Event()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def begin(self, views: Sequence[memoryview]) -> SharedMd5:
        self.told.append(f"md5 of {sum(map(len, views))} begun")
        for view in views:
            self._md5.update(view)
        return self

    async def wait(self) -> None:
        await self.may_end.wait()
        self.told.append("md5 ended")

    def update(self, view: bytes | memoryview, /) -> None:
        self.told.append(f"md5 of {len(view)}")
        self._md5.update(view)

    def digest(self) -> bytes:
        return self._md5.digest()


@pytest.mark.parametrize("fails", [False, True])
async def test_md5_is_shared_beside_other_hashes_and_waited_for_whatever_they_do(
    fails: bool,
) -> None:
    told: list[str] = []
    md5 = SharedMd5(told)
    digester = digests.BodyDigester(("sha256",), shared_md5=md5)
    content = bytes(range(256)) * 1024

    async def hashed_elsewhere(work: Callable[..., Any], *arguments: Any) -> Any:
        work(*arguments)
        told.append("others ended")
        if fails:
            raise RuntimeError("the pool broke")

    task = asyncio.create_task(
        request_body.digest(digester, [memoryview(content)], hashed_elsewhere)
    )
    _, pending = await asyncio.wait([task], timeout=0.05)
    assert pending, "the memory is still read"
    md5.may_end.set()
    await asyncio.wait([task])
    assert told == [f"md5 of {len(content)} begun", "others ended", "md5 ended"]
    assert (task.exception() is not None) == fails
    found = digester.finish({})
    assert found.etag == hashlib.md5(content).hexdigest()
    assert found.checksums["sha256"]


async def test_few_bytes_and_md5_alone_go_no_way_around() -> None:
    told: list[str] = []
    md5 = SharedMd5(told)
    md5.may_end.set()
    digester = digests.BodyDigester(shared_md5=md5)

    async def nowhere(work: Callable[..., Any], *arguments: Any) -> Any:
        raise AssertionError("nothing else is to be hashed")

    await request_body.digest(digester, [memoryview(bytes(5))], nowhere)
    await request_body.digest(
        digester, [memoryview(bytes(request_body.OFFLOAD_BYTES + 1))], nowhere
    )
    assert told == ["md5 of 5", f"md5 of {request_body.OFFLOAD_BYTES + 1} begun", "md5 ended"]
