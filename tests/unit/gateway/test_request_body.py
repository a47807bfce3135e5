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
