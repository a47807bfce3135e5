"""``Range`` of a GET or HEAD, and ``x-amz-copy-source-range`` of a part copy."""

from __future__ import annotations

from couchestor_gateway.protocol import s3_error

_DIGITS_MAX = 19


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The one range a client asks for.

    A header that is malformed, in another unit or with several ranges is ignored (RFC 9110
    14.2; S3 serves no multipart ranges), so the answer is the whole object.

    Args:
        header: Value of ``Range``; None when there is none.
        size_bytes: Size of the object.

    Returns:
        Start and length (at least 1) within the object, or None for all of it.

    Raises:
        S3Error: InvalidRange when the range is well formed and holds no byte of the object.
    """
    if header is None:
        return None
    unit, separator, spec = header.partition("=")
    if not separator or unit.strip().lower() != "bytes":
        return None
    first_text, separator, last_text = spec.strip().partition("-")
    first_text, last_text = first_text.strip(), last_text.strip()
    if not separator or not (first_text or last_text):
        return None
    first, last = _number(first_text), _number(last_text)
    if (first_text and first is None) or (last_text and last is None):
        return None
    if first is None:
        suffix = last or 0
        if suffix == 0 or size_bytes == 0:
            raise _unsatisfiable(header, size_bytes)
        length = min(suffix, size_bytes)
        return size_bytes - length, length
    if last is not None and last < first:
        return None
    if first >= size_bytes:
        raise _unsatisfiable(header, size_bytes)
    end = size_bytes if last is None else min(last + 1, size_bytes)
    return first, end - first


def parse_copy_source_range(header: str, size_bytes: int) -> tuple[int, int]:
    """``bytes=first-last`` of an UploadPartCopy: both ends given, both inside the source.

    Returns:
        Start and length.

    Raises:
        S3Error: InvalidArgument when malformed, InvalidRange when it leaves the source.
    """
    first_text, separator, last_text = header.removeprefix("bytes=").partition("-")
    first, last = _number(first_text), _number(last_text)
    well_formed = header.startswith("bytes=") and separator
    if not well_formed or first is None or last is None or last < first:
        raise s3_error.make(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first"
            " and last are the zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    if last >= size_bytes:
        raise s3_error.make(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {size_bytes}",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    return first, last - first + 1


def _number(text: str) -> int | None:
    if not text or not text.isascii() or not text.isdigit():
        return None
    # Numbers beyond 64 bits only mean "past the end": keep int() cheap.
    return int(text) if len(text) <= _DIGITS_MAX else _clamped(text)


def _clamped(text: str) -> int:
    stripped = text.lstrip("0")
    return int(stripped or "0") if len(stripped) <= _DIGITS_MAX else 1 << 63


def _unsatisfiable(header: str, size_bytes: int) -> s3_error.S3Error:
    return s3_error.make("InvalidRange", RangeRequested=header, ActualObjectSize=str(size_bytes))
