"""Reading a multipart/form-data body that carries one file. Sans-I/O, incremental, bounded.

    body      = [preamble] delimiter *(part delimiter) [epilogue]     the last one with its dashes
    delimiter = CRLF "--" boundary ["--"] *blank CRLF                 the body may begin with "--"
    part      = *(header CRLF) CRLF data

A delimiter is a whole line: data may hold lines that only begin like one. Fields before the file
are collected within bounds; the file's data is handed on as it comes; what follows the file is
ignored, as S3 ignores it, but within a bound, and a second file is refused rather than lost.

Source: RFC 7578 (forms), RFC 2046, 5.1.1 (delimiters), and AWS's pages on browser-based uploads.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple

from couchestor_domain import units
from couchestor_gateway.protocol import form_headers, s3_error

FIELDS_BYTES_MAX: Final = 20 * units.KIB
"""Names and values of the fields before the file, as AWS allows."""
HEAD_BYTES_MAX: Final = 64 * units.KIB
"""Everything before the file's first byte: fields, headers, delimiters, preamble."""
TAIL_BYTES_MAX: Final = 64 * units.KIB
"""Everything after the file's last byte."""
PART_HEAD_BYTES_MAX: Final = 4 * units.KIB
_BLANKS_MAX: Final = 16
_FILE: Final = "file"


class Field(NamedTuple):
    """A field before the file, as it was sent."""

    name: str
    value: str


class _State(enum.Enum):
    DATA = enum.auto()
    """Of a part, or the preamble."""
    PART_HEAD = enum.auto()
    EPILOGUE = enum.auto()
    FAILED = enum.auto()


class _Section(enum.Enum):
    """Whose data it is."""

    PREAMBLE = enum.auto()
    FIELD = enum.auto()
    FILE = enum.auto()
    AFTER_FILE = enum.auto()


class _Line(enum.Enum):
    """What a line that begins like a delimiter is."""

    DELIMITER = enum.auto()
    LAST_DELIMITER = enum.auto()
    DATA = enum.auto()
    UNDECIDED = enum.auto()


class FormParser:
    """Takes one form apart.

    Feed it until ``in_file``, then read ``fields`` and ``filename``, and go on feeding: what
    ``feed`` gives is the file. The file is whole only once ``close`` has returned: the caller MUST
    NOT make anything of it durable or visible before. After an error every further call raises.

    Args:
        boundary: As ``form_headers.boundary_of`` gives it.
    """

    __slots__ = (
        "_buffer",
        "_delimiter",
        "_fed_bytes",
        "_fields_bytes",
        "_name",
        "_section",
        "_skipped_bytes",
        "_state",
        "_tail_start",
        "_value",
        "fields",
        "file_start_bytes",
        "filename",
    )

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The body may begin with its first delimiter: as if an empty line came before it.
        self._buffer = bytearray(b"\r\n")
        self._fed_bytes = 2
        self._skipped_bytes = 2
        """How much at the buffer's start is the line break before the data, not part of it."""
        self._state = _State.DATA
        self._section = _Section.PREAMBLE
        self._name = ""
        self._value = bytearray()
        self._fields_bytes = 0
        self._tail_start = 0
        self.fields: list[Field] = []
        self.filename = ""
        """As the client sent it, possibly with a path; empty where it sent none."""
        self.file_start_bytes = 0
        """How much of the body comes before the file; known once ``in_file``."""

    @property
    def in_file(self) -> bool:
        """Whether the file has begun: all fields that count are known."""
        return self._section in (_Section.FILE, _Section.AFTER_FILE)

    @property
    def closing_bytes_min(self) -> int:
        """How many bytes follow the file's last one at least."""
        return len(self._delimiter) + 2

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        """Take the next bytes, cut anywhere.

        Returns:
            Pieces of the file, in order; whole pieces are views of ``data``, not copied.

        Raises:
            S3Error: MalformedPOSTRequest, MaxPostPreDataLengthExceeded, InvalidArgument (no file),
                IncorrectNumberOfFilesInPostRequest, InvalidRequest (too much after the file).
        """
        return self._guarded(data, is_end=False)

    def close(self) -> list[bytes | memoryview]:
        """The body has ended: what was held back is settled. Returns and raises as ``feed``."""
        return self._guarded(b"", is_end=True)

    def _guarded(self, data: bytes, *, is_end: bool) -> list[bytes | memoryview]:
        if self._state is _State.FAILED:
            raise form_headers.malformed("it has already been refused")
        try:
            pieces = list(self._advance(data, is_end))
            self._require_bounds(self._fed_bytes)
            if is_end and self._state is not _State.EPILOGUE:
                raise form_headers.malformed("it ends before its closing delimiter")
        except s3_error.S3Error:
            self._state = _State.FAILED
            raise
        return pieces

    def _advance(self, data: bytes, is_end: bool) -> Iterator[bytes | memoryview]:
        self._fed_bytes += len(data)
        buffer = self._buffer
        if (
            not buffer
            and self._section is _Section.FILE
            and data
            and data.find(self._delimiter) < 0
        ):
            # Nearly all pieces of a long file: handed on as they came.
            end = self._undoubted(data)
            buffer += data[end:]
            yield memoryview(data)[:end]
            return
        buffer += data
        while True:
            if self._state is _State.PART_HEAD:
                if not self._take_part_head():
                    return
            elif self._state is _State.DATA:
                line, start, end = self._next_delimiter(is_end)
                piece = bytes(memoryview(buffer)[self._skipped_bytes : start])
                if piece and self._section is _Section.FILE:
                    yield piece
                elif self._section is _Section.FIELD:
                    self._keep(piece)
                if line is _Line.UNDECIDED:
                    if start > self._skipped_bytes:
                        del buffer[:start]
                        self._skipped_bytes = 0
                    return
                self._end_section(line, start)
                del buffer[:end]
                self._skipped_bytes = 0
            else:
                buffer.clear()
                return

    def _next_delimiter(self, is_end: bool) -> tuple[_Line, int, int]:
        """What ends the data in the buffer, and where it starts and ends.

        Undecided: nothing yet; the data goes on at least to the start.
        """
        buffer = self._buffer
        start = buffer.find(self._delimiter)
        while start >= 0:
            line, end = self._line_at(start, is_end)
            if line is not _Line.DATA:
                return line, start, end
            start = buffer.find(self._delimiter, start + 1)
        end = self._undoubted(buffer)
        return _Line.UNDECIDED, end, end

    def _line_at(self, start: int, is_end: bool) -> tuple[_Line, int]:
        """What the line is that begins like a delimiter at ``start``, and where it ends."""
        buffer = self._buffer
        at = start + len(self._delimiter)
        is_last = buffer.startswith(b"--", at)
        if is_last:
            at += 2
        elif len(buffer) <= at + 1 and b"-".startswith(buffer[at:]) and not is_end:
            return _Line.UNDECIDED, at
        blanks_end = min(at + _BLANKS_MAX, len(buffer))
        while at < blanks_end and buffer[at] in b" \t":
            at += 1
        rest = bytes(buffer[at : at + 2])
        if rest == b"\r\n" or (is_end and is_last and b"\r\n".startswith(rest)):
            return _Line.LAST_DELIMITER if is_last else _Line.DELIMITER, at + len(rest)
        if b"\r\n".startswith(rest) and not is_end:
            return _Line.UNDECIDED, at
        return _Line.DATA, at

    def _undoubted(self, data: bytes | bytearray) -> int:
        """How much of data without a delimiter is before what may turn out to begin one."""
        # A boundary holds no carriage return: only the last one can begin a delimiter.
        at = data.rfind(b"\r", max(0, len(data) - len(self._delimiter) + 1))
        if at >= 0 and self._delimiter.startswith(data[at:]):
            return at
        return len(data)

    def _take_part_head(self) -> bool:
        """Read the headers of a part. False for want of more bytes."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, PART_HEAD_BYTES_MAX)
        if end < 0:
            if len(buffer) > PART_HEAD_BYTES_MAX:
                raise form_headers.malformed(
                    f"the headers of a part are longer than {PART_HEAD_BYTES_MAX} bytes"
                )
            return False
        head = form_headers.part_head(bytes(buffer[:end]))
        # The empty line may be the line break of a delimiter that follows at once: then there is
        # no data at all.
        del buffer[: end + 2]
        self._skipped_bytes = 2
        self._state = _State.DATA
        self._require_bounds(self._fed_bytes - len(buffer))
        is_file = head.name.lower() == _FILE
        if self._section is _Section.AFTER_FILE:
            if is_file:
                raise _wrong_count("IncorrectNumberOfFilesInPostRequest", 2)
            return True
        self._section = _Section.FILE if is_file else _Section.FIELD
        self._name = head.name
        if is_file:
            self.filename = head.filename
            self.file_start_bytes = self._fed_bytes - len(buffer)
        else:
            self._count(len(head.name.encode()))
        return True

    def _keep(self, piece: bytes) -> None:
        self._count(len(piece))
        self._value += piece

    def _count(self, field_bytes: int) -> None:
        self._fields_bytes += field_bytes
        if self._fields_bytes > FIELDS_BYTES_MAX:
            raise _fields_too_long(FIELDS_BYTES_MAX)

    def _end_section(self, line: _Line, start: int) -> None:
        """A part, or the preamble, has ended where a delimiter starts in the buffer."""
        if self._section is _Section.FIELD:
            try:
                value = self._value.decode("utf-8")
            except UnicodeDecodeError as exc:
                raise form_headers.malformed(
                    f"the field {self._name[:64]} holds bytes that are not UTF-8"
                ) from exc
            self.fields.append(Field(self._name, value))
            self._value.clear()
        elif self._section is _Section.FILE:
            self._section = _Section.AFTER_FILE
            self._tail_start = self._fed_bytes - len(self._buffer) + start
        self._state = _State.PART_HEAD
        if line is _Line.LAST_DELIMITER:
            if self._section is not _Section.AFTER_FILE:
                raise _wrong_count("InvalidArgument", 0)
            self._state = _State.EPILOGUE

    def _require_bounds(self, position_bytes: int) -> None:
        """Hold the body up to a position against the bounds on what is not file."""
        if not self.in_file and position_bytes > HEAD_BYTES_MAX:
            raise _fields_too_long(HEAD_BYTES_MAX)
        if (
            self._section is _Section.AFTER_FILE
            and position_bytes - self._tail_start > TAIL_BYTES_MAX
        ):
            raise s3_error.make(
                "InvalidRequest",
                f"More than {TAIL_BYTES_MAX} bytes follow the file in the form; put fields before"
                " the file: those after it are ignored.",
            )


def _fields_too_long(limit_bytes: int) -> s3_error.S3Error:
    return s3_error.make("MaxPostPreDataLengthExceeded", MaxPostPreDataLengthBytes=str(limit_bytes))


def _wrong_count(code: str, count: int) -> s3_error.S3Error:
    return s3_error.make(
        code,
        "POST requires exactly one file upload per request.",
        ArgumentName=_FILE,
        ArgumentValue=str(count),
    )
