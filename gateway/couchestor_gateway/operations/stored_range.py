"""Which bytes of an object a GET or HEAD asks for, and the headers that say so."""

from __future__ import annotations

from typing import NamedTuple

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import expiration_header, locks, object_headers, versions
from couchestor_gateway.protocol import conditions, ranges, s3_error


class Selection(NamedTuple):
    """A resolved read."""

    record: objects.ObjectRecord
    status: int
    start_bytes: int
    length_bytes: int
    headers: dict[str, str]


async def select(request: s3_request.S3Request) -> Selection:
    """Look the object up, evaluate conditions, resolve Range (with If-Range) or partNumber.

    Raises:
        S3Error: NotModified (304), PreconditionFailed, InvalidRange, InvalidPartNumber.
        NoSuchKeyError, NoSuchVersionError, DeleteMarkerError
    """
    headers, query = request.headers, request.query
    record = await request.find_object(versions.named(query) if query else None)
    kept = record.headers
    if query:
        changed = object_headers.overrides(query)
        if changed and request.caller is None:
            # As S3: else anybody could make a link that shows a public file as a page.
            raise s3_error.make(
                "InvalidRequest",
                "Request specific response headers cannot be used for anonymous GET requests.",
            )
        kept = {**kept, **changed}
    conditions.check_read(headers, etag=record.etag, modified_ns=record.modified_ns, kept=kept)
    with_checksums = headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    part_text = query.get("partNumber") if query else None
    range_text = headers.get("range")
    start, length, status = 0, record.size_bytes, 200
    if part_text is not None:
        if range_text is not None:
            raise s3_error.make(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        start, length = _part(record, part_text)
        status = 206
    elif range_text is not None and conditions.is_range_wanted(
        headers, etag=record.etag, modified_ns=record.modified_ns
    ):
        found = ranges.parse_range(range_text, record.size_bytes)
        if found is not None:
            start, length = found
            status = 206
    answer = object_headers.of_record(
        record,
        query,
        # One part of several has checksums of its own; any other piece has none.
        with_checksums=with_checksums
        and length == record.size_bytes
        and (part_text is None or not record.part_count),
    )
    locks.add(answer, request, record)
    await expiration_header.add(answer, request, record)
    if status == 206:
        if length:
            answer["Content-Range"] = f"bytes {start}-{start + length - 1}/{record.size_bytes}"
        if part_text is not None and record.part_count:
            answer["x-amz-mp-parts-count"] = str(record.part_count)
            if with_checksums and record.part_checksums:
                own = record.part_checksums[int(part_text) - 1]
                answer.update(object_headers.of_checksums(own, record.checksum_type))
    return Selection(record, status, start, length, answer)


def _part(record: objects.ObjectRecord, text: str) -> tuple[int, int]:
    number = versions.part_number(text)
    sizes = record.part_sizes_bytes or (record.size_bytes,)
    if number > len(sizes):
        raise s3_error.make("InvalidPartNumber", "The requested partnumber is not satisfiable")
    return sum(sizes[: number - 1]), sizes[number - 1]
