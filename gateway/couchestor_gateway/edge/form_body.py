"""The body of a posted form: its fields first, then its file as the object store pulls it.

How long the file is shows only at its end: other fields may follow it, and nothing announces them.
So the store is told how long it can be, which is what is left of the body when it begins.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from couchestor_domain import objects
from couchestor_gateway.edge import request_body
from couchestor_gateway.ports import offloading
from couchestor_gateway.protocol import digests, form_data, form_headers, s3_error

AROUND_FILE_BYTES_MAX: Final = form_data.HEAD_BYTES_MAX + form_data.TAIL_BYTES_MAX


class FormBody(request_body.RequestBody):
    """A form over one aiohttp request. Read its fields, begin the file, hand it to the store.

    Args:
        raw: Its Content-Type is that of a form. A client that waits for 100 Continue gets it when
            the fields are read.
        file_bytes_max: Longest file.
        offload: Where long views are hashed.
        stall_seconds: Longest wait for the next byte.

    Raises:
        S3Error: MalformedPOSTRequest (no boundary), MissingContentLength, EntityTooLarge.
    """

    __slots__ = (
        "_body_bytes",
        "_file_bytes",
        "_file_bytes_max",
        "_file_bytes_min",
        "_parser",
        "_raw",
        "is_over_limit",
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        *,
        file_bytes_max: int,
        offload: offloading.Offload,
        stall_seconds: float,
    ) -> None:
        self.is_over_limit = False
        """Whether the request is one more than its sender may send now."""
        headers = raw.headers
        self._parser = form_data.FormParser(
            form_headers.boundary_of(headers.get("Content-Type", ""))
        )
        self._body_bytes = request_body.announced_bytes(
            headers.get("Content-Length"),
            file_bytes_max + AROUND_FILE_BYTES_MAX,
            too_long_code="EntityTooLarge",
        )
        self._raw = raw
        self._file_bytes = 0
        self._file_bytes_min = 0
        self._file_bytes_max = file_bytes_max
        super().__init__(
            raw.content,
            size_bytes=0,
            decoder=_FileOnly(self._parser),
            digester=digests.BodyDigester(),
            offload=offload,
            stall_seconds=stall_seconds,
            may_end_early=True,
        )

    async def read_fields(self) -> form_data.FormParser:
        """Read up to the file; fields and the file's name are known then.

        Raises:
            S3Error: RequestTimeout, and what the parser raises.
            BodyTruncatedError: the client went away.
        """
        if self._raw.headers.get("Expect", "").lower() == "100-continue":
            request_body.invite(self._raw)
        while not self._parser.in_file:
            await self._pull()
        left_bytes = self._body_bytes - self._parser.file_start_bytes
        self.size_bytes = max(0, left_bytes - self._parser.closing_bytes_min)
        self._left_bytes = self.size_bytes
        return self._parser

    def begin(
        self, digester: digests.BodyDigester, *, size_bytes_min: int, size_bytes_max: int | None
    ) -> None:
        """The fields were accepted: the file may be read.

        Args:
            digester: Receives every byte of the file once, in order.
            size_bytes_min: Shortest file allowed.
            size_bytes_max: Longest file allowed, None for no limit but the gateway's.

        Raises:
            S3Error: EntityTooSmall, EntityTooLarge, where it is sure already.
        """
        self._digester = digester
        self._file_bytes_min = size_bytes_min
        if size_bytes_max is not None:
            self._file_bytes_max = min(self._file_bytes_max, size_bytes_max)
        self._require_size(
            at_least=self.size_bytes - form_data.TAIL_BYTES_MAX, at_most=self.size_bytes
        )

    async def readinto(self, *views: memoryview) -> int:
        """See ``BodySource.readinto``.

        Raises:
            S3Error: EntityTooLarge, RequestTimeout, and what the parser and the digester raise.
            BodyTruncatedError: the client went away.
        """
        filled = [view[: await self._fill(view)] for view in views]
        taken_bytes = sum(map(len, filled))
        self._file_bytes += taken_bytes
        self._require_size(at_least=self._file_bytes, at_most=self.size_bytes)
        await request_body.digest(self._digester, filled, self._offload)
        return taken_bytes

    async def finish(self) -> objects.BodyDigests:
        """See ``BodySource.finish``; what follows the file is read and ignored."""
        while await self._pull():
            pass
        assert not self._pieces, "the store reads until there is no more"
        self._require_size(at_least=self._file_bytes, at_most=self._file_bytes)
        return self._digester.finish({})

    async def _pull(self) -> bool:
        """Queue the next pieces of the file. False at the body's end, which has been judged."""
        if await super()._pull():
            return True
        self._parser.close()
        return False

    def _require_size(self, *, at_least: int, at_most: int) -> None:
        if at_least > self._file_bytes_max:
            raise s3_error.make(
                "EntityTooLarge",
                ProposedSize=str(at_least),
                MaxSizeAllowed=str(self._file_bytes_max),
            )
        if at_most < self._file_bytes_min:
            raise s3_error.make(
                "EntityTooSmall",
                ProposedSize=str(at_most),
                MinSizeAllowed=str(self._file_bytes_min),
            )


class _FileOnly:
    """The parser as what takes all from the body that is not file."""

    trailers = objects.EMPTY_MAP

    def __init__(self, parser: form_data.FormParser) -> None:
        self._parser = parser

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        return self._parser.feed(data)

    def close(self) -> None:
        self._parser.close()
