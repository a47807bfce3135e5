"""HTTP answers, read no further than a benchmark needs: status, length, and a body when asked for.

Costs little: bytes of a body of known length are counted, neither copied nor looked at.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 64 * 1024
KEPT_BYTES_MAX: Final = 64 * 1024
"""Of a body that is kept: an error, or the answer to a step of an upload."""
_CHUNK_LINE_BYTES_MAX: Final = 1024


class AnswerError(Exception):
    """The server does not speak HTTP as it should; the connection is of no more use."""


class Answer(NamedTuple):
    """One whole answer."""

    status: int
    body_bytes: int
    kept: bytes
    """The body if it was to be kept, and of every answer that is an error; else nothing."""
    head: bytes
    closes: bool
    """The server takes no more requests on this connection."""


class AnswerReader:
    """Reads the answers of one connection, one at a time.

    Call ``expect`` before each request, then ``feed`` with what arrives until it gives the answer.
    """

    __slots__ = (
        "_body_bytes", "_buffer", "_chunked", "_closes", "_head", "_headless", "_keep", "_kept",
        "_left", "_status", "_trailing", "_until_end",
    )  # fmt: skip

    def __init__(self) -> None:
        self.expect()

    def expect(self, *, headless: bool = False, keep: bool = False) -> None:
        """Be ready for the next answer. ``headless``: it answers HEAD, and so has no body."""
        self._headless, self._keep = headless, keep
        self._buffer = b""
        self._head = b""
        self._status = self._body_bytes = 0
        self._left = -1
        self._chunked = self._closes = self._until_end = self._trailing = False
        self._kept: list[bytes] = []

    def feed(self, data: bytes) -> Answer | None:
        """Take what arrived. Returns the answer once it is whole.

        Raises:
            AnswerError: It is malformed, or longer than it said.
        """
        if not self._head:
            rest = self._read_head(self._buffer + data if self._buffer else data)
            if rest is None:
                return None
            data = rest
        if self._chunked:
            return self._feed_chunks(data)
        self._count(data)
        if self._until_end:
            return None
        self._left -= len(data)
        if self._left < 0:
            raise AnswerError("answer longer than declared")
        return self._whole() if self._left == 0 else None

    def end(self) -> Answer | None:
        """The connection has ended. Returns an answer that only that could end."""
        return self._whole() if self._head and self._until_end else None

    def _read_head(self, data: bytes) -> bytes | None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_BYTES_MAX:
                    raise AnswerError("answer's head too long")
                self._buffer = data
                return None
            head, data = data[: end + 2], data[end + 4 :]
            if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
                raise AnswerError("no answer of HTTP/1.1")
            self._status = int(head[9:12])
            # 100 Continue and its like announce the answer, they are none.
            if self._status >= 200:
                break
        self._head, self._buffer = head, b""
        self._closes = head_value(head, b"connection").lower() == b"close"
        length = head_value(head, b"content-length")
        if self._headless or self._status in (204, 304):
            self._left = 0
        elif head_value(head, b"transfer-encoding").lower() == b"chunked":
            self._chunked, self._left = True, 0
        elif length.isdigit():
            self._left = int(length)
        else:
            self._until_end = self._closes = True
        return data

    def _feed_chunks(self, data: bytes) -> Answer | None:
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        while True:
            if self._left > 2:
                part = data[: self._left - 2]
                self._count(part)
                self._left -= len(part)
                data = data[len(part) :]
            if 0 < self._left <= 2:
                # The line end behind a chunk.
                skipped = min(self._left, len(data))
                self._left -= skipped
                data = data[skipped:]
            if self._left:
                return None
            line, found, rest = data.partition(b"\r\n")
            if not found:
                if len(data) > _CHUNK_LINE_BYTES_MAX:
                    raise AnswerError("line of a chunk too long")
                self._buffer = data
                return None
            data = rest
            if self._trailing:
                if not line:
                    if data:
                        raise AnswerError("answer longer than declared")
                    return self._whole()
                continue
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise AnswerError("chunk without a length") from None
            if size:
                self._left = size + 2
            else:
                self._trailing = True

    def _count(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if (self._keep or self._status >= 300) and self._body_bytes <= KEPT_BYTES_MAX:
            self._kept.append(bytes(part))

    def _whole(self) -> Answer:
        kept = b"".join(self._kept)
        return Answer(self._status, self._body_bytes, kept, self._head, self._closes)


def head_value(head: bytes, name: bytes) -> bytes:
    """Value of a header, ``name`` in lower case; empty when it is not there."""
    lowered = head.lower()
    at = lowered.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    begin = at + len(name) + 3
    end = lowered.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else len(head)].strip()


def failure_of(answer: Answer) -> str:
    """The S3 error code of an answer that is an error, such as ``SlowDown``; empty of a good one.

    An answer of 200 may be an error, too: completing an upload begins it before it is done.
    """
    begin = answer.kept.find(b"<Code>")
    if begin >= 0 and answer.kept.find(b"<Error>") >= 0:
        end = answer.kept.find(b"</Code>", begin)
        if end >= 0:
            return answer.kept[begin + 6 : end].decode("ascii", "replace")
    return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
