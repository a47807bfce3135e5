"""Headers that live with an object: taken from a write, given back on a read."""

from __future__ import annotations

from collections.abc import Mapping
from email import header as email_header
from typing import Final

from couchestor_domain import objects
from couchestor_gateway.protocol import header_syntax, s3_error, timestamps

METADATA_BYTES_MAX: Final = 2048
_PREFIX: Final = "x-amz-meta-"
_KEPT: Final = ("cache-control", "content-disposition", "content-language", "expires")
_OVERRIDES: Final = (
    ("response-content-type", "content-type"),
    ("response-content-language", "content-language"),
    ("response-expires", "expires"),
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
)


def standard(headers: Mapping[str, str]) -> dict[str, str]:
    """The standard headers an object keeps, lower-case names; ``aws-chunked`` is not content.

    Raises:
        S3Error: InvalidStorageClass.
    """
    if headers.get("x-amz-storage-class", "STANDARD") != "STANDARD":
        raise s3_error.make("InvalidStorageClass")
    kept = {"content-type": readable(headers.get("content-type") or "binary/octet-stream")}
    encoding = headers.get("content-encoding")
    if encoding:
        # What is left stays as the client wrote it, blanks and all.
        codings = (c for c in encoding.split(",") if c.strip().lower() != "aws-chunked")
        encoding = ",".join(codings).strip(" ,")
        if encoding:
            kept["content-encoding"] = readable(encoding)
    for name in _KEPT:
        value = headers.get(name)
        if value:
            kept[name] = readable(value)
    return kept


def metadata(headers: Mapping[str, str]) -> Mapping[str, str]:
    """User metadata of a write, names lower-case without their prefix.

    Raises:
        S3Error: MetadataTooLarge.
    """
    found: dict[str, str] = {}
    size_bytes = 0
    for raw_name, value in headers.items():
        if len(raw_name) > len(_PREFIX) and raw_name[: len(_PREFIX)].lower() == _PREFIX:
            name = raw_name[len(_PREFIX) :].lower()
            value = readable(value)
            # A header sent twice is one header with both values (RFC 9110, 5.3).
            found[name] = f"{found[name]},{value}" if name in found else value
            size_bytes += len(name) + len(value.encode())
    if size_bytes > METADATA_BYTES_MAX:
        raise s3_error.make(
            "MetadataTooLarge", Size=str(size_bytes), MaxSizeAllowed=str(METADATA_BYTES_MAX)
        )
    return found or objects.EMPTY_MAP


def readable(value: str) -> str:
    """A header's text: UTF-8, or Latin-1 where the client sent bytes that are not UTF-8."""
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def writable(value: str) -> str:
    """``value`` of user metadata as S3 gives it back: RFC 2047 where it is not ASCII."""
    if value.isascii():
        return value
    return email_header.Header(value, "utf-8", maxlinelen=0x7FFFFFFF).encode()


def of_record(
    record: objects.ObjectRecord, query: Mapping[str, str], *, with_checksums: bool
) -> dict[str, str]:
    """Response headers of a GET or HEAD, overrides from ``response-*`` applied.

    Standard headers go out as they came, in UTF-8. They have a syntax of their own, and a file name
    with an umlaut that is encoded as a whole hides both ``attachment`` and the name from browsers.
    """
    kept = record.headers
    answer = {
        "ETag": f'"{record.etag}"',
        "Last-Modified": timestamps.http_date(record.modified_ns),
        "Accept-Ranges": "bytes",
        "Content-Type": kept.get("content-type", "binary/octet-stream"),
    }
    if record.tags:
        answer["x-amz-tagging-count"] = str(len(record.tags))
    if record.is_named:
        answer["x-amz-version-id"] = record.version_id
    for name, value in kept.items():
        if name != "content-type":
            answer[name] = value
    for name, value in record.metadata.items():
        answer[_PREFIX + name] = writable(value)
    if with_checksums and record.checksums:
        for algorithm, value in record.checksums.items():
            answer[f"x-amz-checksum-{algorithm}"] = value
        answer["x-amz-checksum-type"] = record.checksum_type
    if query:
        for name, value in overrides(query).items():
            answer["Content-Type" if name == "content-type" else name] = value
    return answer


def overrides(query: Mapping[str, str]) -> dict[str, str]:
    """Headers that the ``response-*`` parameters of a read ask for, lower-case names.

    Raises:
        S3Error: InvalidArgument for a control character, which could split the answer.
    """
    found: dict[str, str] = {}
    for parameter, name in _OVERRIDES:
        value = query.get(parameter, "")
        if value:
            if not header_syntax.is_value(value):
                raise s3_error.make("InvalidArgument", f"{parameter} holds a control character")
            found[name] = value
    return found


def of_checksums(checksums: Mapping[str, str], checksum_type: str) -> dict[str, str]:
    """Checksum headers a write answers with."""
    answer = {f"x-amz-checksum-{algorithm}": value for algorithm, value in checksums.items()}
    if answer and checksum_type:
        answer["x-amz-checksum-type"] = checksum_type
    return answer
