"""aws-chunked bodies: AWS's published example, and every way to break one."""

from __future__ import annotations

import pytest

from couchestor_gateway.protocol import chunked, request_identity, s3_error, sigv4_signatures

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KIND = request_identity.PayloadKind


def _identity(kind: request_identity.PayloadKind, seed: str = "") -> request_identity.Identity:
    return request_identity.Identity(
        credential=None,
        payload=kind,
        signing_key=sigv4_signatures.derive_signing_key(SECRET, "20130524", "us-east-1"),
        scope="20130524/us-east-1/s3/aws4_request",
        amz_date="20130524T000000Z",
        seed_signature=seed,
    )


# AWS S3 API reference, "Transferring Payload in Multiple Chunks".
_SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
_CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
_BODY = b"".join(
    b"%x;chunk-signature=%s\r\n%s\r\n" % (size, signature.encode(), b"a" * size)
    for size, signature in _CHUNKS
)


def _decode(decoder: chunked.ChunkedDecoder, data: bytes) -> bytes:
    result = b"".join(bytes(piece) for piece in decoder.feed(data))
    decoder.close()
    return result


def test_published_example() -> None:
    decoder = chunked.ChunkedDecoder(_identity(KIND.STREAMING_SIGNED, _SEED), 66560, ())
    assert _decode(decoder, _BODY) == b"a" * 66560
    assert decoder.finished


@pytest.mark.parametrize("position", [3, 30, 100, 66000, len(_BODY) - 30])
def test_any_changed_byte_fails(position: int) -> None:
    data = bytearray(_BODY)
    data[position] ^= 1
    decoder = chunked.ChunkedDecoder(_identity(KIND.STREAMING_SIGNED, _SEED), 66560, ())
    with pytest.raises(s3_error.S3Error):
        _decode(decoder, bytes(data))
    assert not decoder.finished
    with pytest.raises(s3_error.S3Error):
        decoder.feed(b"0")


UNSIGNED = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
NAMES = ("x-amz-checksum-crc32",)


def test_unsigned_trailer() -> None:
    decoder = chunked.ChunkedDecoder(_identity(KIND.STREAMING_UNSIGNED_TRAILER), 11, NAMES)
    assert _decode(decoder, UNSIGNED) == b"hello world"
    assert decoder.trailers == {"x-amz-checksum-crc32": "DUoRhQ=="}


@pytest.mark.parametrize(
    ("data", "length", "code"),
    [
        (UNSIGNED, 10, "IncompleteBody"),
        (UNSIGNED, 12, "IncompleteBody"),
        (UNSIGNED[:-1], 11, "IncompleteBody"),
        (UNSIGNED + b"x", 11, "IncompleteBody"),
        (UNSIGNED.replace(b"hello", b"hell"), 11, "IncompleteBody"),
        (UNSIGNED.replace(b"5\r", b"+5\r", 1), 11, "IncompleteBody"),
        (UNSIGNED.replace(b"crc32", b"crc99"), 11, "MalformedTrailerError"),
        (b"0\r\n\r\n", 0, "MalformedTrailerError"),
        (b"0" * 2000, 11, "InvalidRequest"),
        (b"0\r\nx-amz-checksum-crc32:" + b"a" * 9000, 0, "InvalidRequest"),
        (b"fffffffffff\r\n", 11, "InvalidRequest"),
    ],
)
def test_malformed(data: bytes, length: int, code: str) -> None:
    decoder = chunked.ChunkedDecoder(_identity(KIND.STREAMING_UNSIGNED_TRAILER), length, NAMES)
    with pytest.raises(s3_error.S3Error) as caught:
        _decode(decoder, data)
    assert caught.value.code == code


# AWS S3 API reference, the example with a trailing CRC32C.
_TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
_TRAILER_CHUNKS = (
    (65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    (1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    (0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
)
_TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


@pytest.mark.parametrize("valid", [True, False])
def test_published_signed_trailer(valid: bool) -> None:
    body = b"".join(
        b"%x;chunk-signature=%s\r\n%s"
        % (size, signature.encode(), b"a" * size + b"\r\n" * (size > 0))
        for size, signature in _TRAILER_CHUNKS
    )
    value = "sOO8/Q==" if valid else "sOO8/A=="
    body += f"x-amz-checksum-crc32c:{value}\r\n".encode()
    body += f"x-amz-trailer-signature:{_TRAILER_SIGNATURE}\r\n\r\n".encode()
    decoder = chunked.ChunkedDecoder(
        _identity(KIND.STREAMING_SIGNED_TRAILER, _TRAILER_SEED), 66560, ("x-amz-checksum-crc32c",)
    )
    if valid:
        assert len(_decode(decoder, body)) == 66560
        assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}
    else:
        with pytest.raises(s3_error.S3Error, match="signature"):
            _decode(decoder, body)
