"""A request's body as the object store pulls it: decoded, digested, bounded, with deadlines.

Bytes are copied once, from aiohttp's pieces into the store's own buffer; digests run over that
buffer. Framing such as that of aws-chunked is removed on the way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import aiohttp
from aiohttp import web

from couchestor_domain import errors, objects, units
from couchestor_gateway.ports import offloading
from couchestor_gateway.protocol import digests, s3_error

OFFLOAD_BYTES: Final = 128 * units.KIB
"""More than this is hashed off the event loop (the hashes release the GIL)."""

_LOST: Final = (
    ConnectionError,
    aiohttp.ClientError,
    aiohttp.http.HttpProcessingError,
    web.RequestPayloadError,
)


async def digest(
    digester: digests.BodyDigester, views: Sequence[memoryview], offload: offloading.Offload
) -> None:
    """Feed views to a digester; many bytes elsewhere, MD5 beside the rest where it is shared."""
    if sum(map(len, views)) <= OFFLOAD_BYTES:
        _update(digester.update, views)
        return
    md5 = digester.begin_md5(views)
    if md5 is None:
        await offload(_update, digester.update, views)
        return
    try:
        if digester.has_others:
            await offload(_update, digester.update_others, views)
    finally:
        await md5.wait()


def _update(update: Callable[[memoryview], None], views: Sequence[memoryview]) -> None:
    for view in views:
        if view:
            update(view)


def invite(raw: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body.

    Written here, not by aiohttp, so that a refused request never invites its body.

    Raises:
        BodyTruncatedError: the client is gone.
    """
    if raw.transport is None:
        raise errors.BodyTruncatedError("the client went away before the body")
    raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def announced_bytes(text: str | None, limit_bytes: int, *, too_long_code: str) -> int:
    """The length that a header announces for a body.

    Raises:
        S3Error: MissingContentLength, InvalidArgument, ``too_long_code`` above the limit.
    """
    if text is None:
        raise s3_error.make("MissingContentLength")
    if not (text.isascii() and text.isdigit()):
        raise s3_error.make("InvalidArgument", "The content length is not a number.")
    size_bytes = int(text) if len(text) < 20 else limit_bytes + 1
    if size_bytes > limit_bytes:
        raise s3_error.make(
            too_long_code, ProposedSize=str(size_bytes), MaxSizeAllowed=str(limit_bytes)
        )
    return size_bytes


class Decoder(Protocol):
    """Takes the framing of a body away."""

    def feed(self, data: bytes) -> Sequence[bytes | memoryview]:
        """The content of the next bytes. Raises S3Error."""
        ...

    def close(self) -> None:
        """The wire has ended. Raises S3Error for a body that is not whole."""
        ...

    @property
    def trailers(self) -> Mapping[str, str]:
        """Trailers of a whole body, names in lower case."""
        ...


class Content(Protocol):
    """The part of ``aiohttp.StreamReader`` that a body needs."""

    total_bytes: int

    def at_eof(self) -> bool: ...

    async def readchunk(self) -> tuple[bytes, bool]: ...


class RequestBody:
    """Implements ``ports.object_store.BodySource`` over one aiohttp request.

    ``size_bytes`` is what it must hold to the byte, unless it may end early.

    Args:
        content: aiohttp's stream of the body as framed by HTTP.
        size_bytes: Decoded length the client announced, or the longest that is taken.
        decoder: Removes framing within HTTP's; None for a plain body.
        digester: Receives every decoded byte once, in order.
        offload: Where long views are hashed.
        stall_seconds: Longest wait for the next byte.
        may_end_early: Whether HTTP's framing alone tells where it ends.
    """

    __slots__ = (
        "_content",
        "_decoder",
        "_digester",
        "_left_bytes",
        "_offload",
        "_pieces",
        "_stall_seconds",
        "may_end_early",
        "received_bytes",
        "size_bytes",
    )

    def __init__(
        self,
        content: Content,
        *,
        size_bytes: int,
        decoder: Decoder | None,
        digester: digests.BodyDigester,
        offload: offloading.Offload,
        stall_seconds: float,
        may_end_early: bool = False,
    ) -> None:
        self.may_end_early = may_end_early
        self._content = content
        self.size_bytes = size_bytes
        self._left_bytes = size_bytes
        self._decoder = decoder
        self._digester = digester
        self._offload = offload
        self._stall_seconds = stall_seconds
        self._pieces: deque[memoryview] = deque()
        self.received_bytes = 0
        """Bytes taken from the connection so far, framing included."""

    async def readinto(self, *views: memoryview) -> int:
        """See ``BodySource.readinto``.

        Raises:
            S3Error: RequestTimeout when the client stalls; the decoder's and digester's errors.
            BodyTruncatedError: the client went away or sent too little.
            BodyTooLongError: more decoded bytes than announced.
        """
        filled = [view[: await self._fill(view)] for view in views]
        total = sum(map(len, filled))
        if total < sum(map(len, views)) and self._left_bytes and not self.may_end_early:
            raise errors.BodyTruncatedError(f"body ended {self._left_bytes} bytes early")
        await digest(self._digester, filled, self._offload)
        return total

    async def _fill(self, view: memoryview) -> int:
        wanted = len(view)
        filled = 0
        pieces = self._pieces
        while filled < wanted:
            if not pieces:
                if self._left_bytes == 0 or not await self._pull():
                    break
                continue
            piece = pieces[0]
            room = wanted - filled
            if len(piece) <= room:
                pieces.popleft()
            else:
                pieces[0] = piece[room:]
                piece = piece[:room]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._left_bytes -= len(piece)
            if self._left_bytes < 0:
                raise errors.BodyTooLongError(f"body exceeds its {self.size_bytes} bytes")
        return filled

    async def finish(self) -> objects.BodyDigests:
        """See ``BodySource.finish``."""
        if self._left_bytes and not self.may_end_early:
            raise errors.BodyTruncatedError(f"{self._left_bytes} bytes of the body are missing")
        decoder = self._decoder
        while not self._content.at_eof():
            if not await self._pull():
                break
        if self._pieces:
            raise errors.BodyTooLongError(f"body exceeds its {self.size_bytes} bytes")
        if decoder is None:
            return self._digester.finish({})
        decoder.close()
        return self._digester.finish(decoder.trailers)

    async def read_all(self) -> bytes:
        """The whole body, for small documents; digests verified."""
        buffer = bytearray(self.size_bytes)
        with memoryview(buffer) as view:
            await self.readinto(view)
        await self.finish()
        return bytes(buffer)

    async def _pull(self) -> bool:
        """Queue the next decoded pieces. False at the end of the HTTP body."""
        content = self._content
        try:
            # Piece by piece as it came: asking for all there is would join it, a copy.
            if content.total_bytes > self.received_bytes:
                data, _ = await content.readchunk()
            elif content.at_eof():
                return False
            else:
                async with asyncio.timeout(self._stall_seconds):
                    data, _ = await content.readchunk()
            if not data:
                return not content.at_eof()
        except TimeoutError as exc:
            raise s3_error.make("RequestTimeout") from exc
        except _LOST as exc:
            raise errors.BodyTruncatedError("the client went away during the body") from exc
        self.received_bytes += len(data)
        if self._decoder is None:
            self._pieces.append(memoryview(data))
        else:
            for piece in self._decoder.feed(data):
                if piece:
                    self._pieces.append(memoryview(piece))
        return True
