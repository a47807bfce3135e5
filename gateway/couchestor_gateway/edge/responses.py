"""What an operation answers, before aiohttp is involved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from couchestor_gateway.protocol import s3_error, xml_writing

XML: Final = "application/xml"


class Reply:
    """Status, headers and a body of ``length_bytes``: one buffer, or one that a stream follows.

    What fails while the buffer is made is answered by an error; what fails in the stream breaks
    the answer off. Buffer and pieces need stay valid only until the next piece is asked for: the
    edge waits until the transport has let go of each.
    """

    __slots__ = ("body", "headers", "length_bytes", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: bytes | memoryview = b"",
        *,
        stream: AsyncIterator[bytes | memoryview] | None = None,
        length_bytes: int | None = None,
    ) -> None:
        self.status = status
        self.headers = {} if headers is None else headers
        self.body = body
        self.stream = stream
        self.length_bytes = len(body) if length_bytes is None else length_bytes


def document(content: bytes, *, headers: dict[str, str] | None = None) -> Reply:
    """200 with an XML body."""
    merged = {"Content-Type": XML}
    if headers:
        merged.update(headers)
    return Reply(200, merged, content)


def failure(
    error: s3_error.S3Error, *, resource: str, request_id: str, host_id: str, head: bool
) -> Reply:
    """An error as S3 writes it; a HEAD, 304 or similar carries no document."""
    headers: dict[str, str] = {**error.headers}
    if error.status == 503:
        headers["Retry-After"] = str(error.extra.get("RetryAfter", 1))
    if error.status == 416 and "ActualObjectSize" in error.extra:
        headers["Content-Range"] = f"bytes */{error.extra['ActualObjectSize']}"
    if error.status == 304:
        # RFC 9110, 15.4.5: what a cache needs to renew what it holds.
        headers.update(error.extra)
    if head or error.status == 304:
        return Reply(error.status, headers, length_bytes=0)
    xml = xml_writing.Document("Error", namespace="")
    xml.text("Code", error.code).text("Message", error.message)
    for name, value in error.extra.items():
        xml.text(name, str(value))
    xml.text("Resource", resource).text("RequestId", request_id).text("HostId", host_id)
    headers["Content-Type"] = XML
    return Reply(error.status, headers, xml.finish())
