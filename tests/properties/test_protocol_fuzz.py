"""Parsers of what clients send: cut anywhere, filled with anything."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couchestor_gateway.protocol import chunked, ranges, request_identity, s3_error, xml_reading

_KIND = request_identity.PayloadKind.STREAMING_UNSIGNED_TRAILER
_NAMES = ("x-amz-checksum-crc32",)


def _decoder(length: int, kind: request_identity.PayloadKind = _KIND) -> chunked.ChunkedDecoder:
    return chunked.ChunkedDecoder(
        request_identity.Identity(credential=None, payload=kind), length, _NAMES
    )


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_any_split_decodes_alike(chunks: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire += b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    payload = b"".join(chunks)
    decoder = _decoder(len(payload))
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    out = b""
    for start, stop in itertools.pairwise(edges):
        out += b"".join(bytes(piece) for piece in decoder.feed(wire[start:stop]))
    decoder.close()
    assert out == payload
    assert decoder.trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.text(alphabet="0a1;=:\r\n-chunksigatre", max_size=200).map(str.encode),
    kind=st.sampled_from([kind for kind in request_identity.PayloadKind if kind.is_streaming]),
)
def test_chunked_garbage_only_raises_s3_errors(
    data: bytes, kind: request_identity.PayloadKind
) -> None:
    decoder = _decoder(10, kind)
    with contextlib.suppress(s3_error.S3Error):
        decoder.feed(data)
        decoder.close()
    assert not decoder.finished


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=100) | st.text(alphabet='<>/DeltOjcKy&;!"', max_size=80).map(str.encode)
)
def test_xml_garbage_only_raises_s3_errors(data: bytes) -> None:
    for parse in (
        xml_reading.create_bucket_configuration,
        xml_reading.delete,
        xml_reading.complete_multipart_upload,
    ):
        with contextlib.suppress(s3_error.S3Error):
            parse(data)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="bytes=-0123456789, ", max_size=40)
    | st.builds("bytes={}-{}".format, st.integers(0, 99), st.integers(0, 99)),
    size=st.integers(0, 64),
)
def test_ranges_stay_inside(text: str, size: int) -> None:
    try:
        found = ranges.parse_range(text, size)
    except s3_error.S3Error:
        with pytest.raises(s3_error.S3Error, match="range is not satisfiable"):
            ranges.parse_range(text, size)
        return
    if found is not None:
        start, length = found
        assert 0 <= start < size
        assert 0 < length <= size - start
