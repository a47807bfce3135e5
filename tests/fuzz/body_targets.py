"""Bodies that come in pieces: aws-chunked framing and forms, and the policies of forms."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.fuzz import target

from couchestor_gateway.protocol import (
    chunked,
    form_data,
    form_headers,
    post_policy,
    request_identity,
    s3_error,
)
from couchestor_gateway.protocol.request_identity import PayloadKind

BOUNDARY: Final = b"xyz"
_KINDS: Final = [kind for kind in PayloadKind if kind.is_streaming]
_KEY: Final = b"k" * 32
_DATE: Final = "20261129T120000Z"
_SCOPE: Final = "20261129/us-east-1/s3/aws4_request"
_SEED: Final = "0" * 64
_TRAILER: Final = "x-amz-checksum-crc32"
_CUT_AT_EACH_BYTE_MAX: Final = 2048

_Result = tuple[str, bytes, object]
"""The code of the refusal, or nothing; then the payload and what was told beside it."""


def _decoded(
    wire: bytes, *, kind: PayloadKind, size_bytes: int, names: Sequence[str], cut: int
) -> _Result:
    identity = request_identity.Identity(
        credential=None,
        payload=kind,
        signing_key=_KEY,
        scope=_SCOPE,
        amz_date=_DATE,
        seed_signature=_SEED,
    )
    decoder = chunked.ChunkedDecoder(identity, size_bytes, names)
    payload = bytearray()
    code = ""
    with target.s3_refusals():
        try:
            for piece in target.pieces(wire, cut):
                for part in decoder.feed(piece):
                    payload += part
            decoder.close()
        except s3_error.S3Error as exc:
            code = exc.code
            assert not decoder.finished
            raise
    if code:
        return code, b"", None
    assert decoder.finished
    assert len(payload) == size_bytes
    return code, bytes(payload), decoder.trailers


def _same_however_cut(read: Callable[[int], _Result], length: int, cut: int) -> _Result:
    """What a body reads as; read in one piece, in short ones and byte by byte."""
    whole = read(0)
    cuts = [cut] if cut else []
    if length <= _CUT_AT_EACH_BYTE_MAX:
        cuts.append(1)
    for each in cuts:
        assert read(each) == whole, f"cut into pieces of {each}"
    return whole


def run_chunked(data: bytes) -> None:
    """Kind, length of pieces and announced length, a byte each, and the wire."""
    if len(data) < 3:
        return
    kind, cut, size_bytes, wire = _KINDS[data[0] % len(_KINDS)], data[1], data[2], data[3:]
    names = () if kind is PayloadKind.STREAMING_SIGNED else (_TRAILER,)
    _same_however_cut(
        lambda cut: _decoded(wire, kind=kind, size_bytes=size_bytes, names=names, cut=cut),
        len(wire),
        cut,
    )


def _signature(name: str, previous: str, *hashes: str) -> str:
    lines = "\n".join((f"AWS4-HMAC-SHA256-{name}", _DATE, _SCOPE, previous, *hashes))
    return hmac.digest(_KEY, lines.encode(), "sha256").hex()


def write_chunked(payload: bytes, *, kind: PayloadKind, chunk_bytes: int) -> bytes:
    """The wire of a payload, written from AWS's description."""
    empty = hashlib.sha256(b"").hexdigest()
    is_signed = kind in request_identity.SIGNED_CHUNKS
    previous = _SEED
    wire = bytearray()
    for chunk in (*(target.pieces(payload, chunk_bytes) if payload else ()), b""):
        extension = ""
        if is_signed:
            previous = _signature("PAYLOAD", previous, empty, hashlib.sha256(chunk).hexdigest())
            extension = f";chunk-signature={previous}"
        wire += f"{len(chunk):x}{extension}\r\n".encode() + chunk
        if chunk:
            wire += b"\r\n"
    if kind is not PayloadKind.STREAMING_SIGNED:
        wire += f"{_TRAILER}:AAAAAA==\r\n".encode()
        if is_signed:
            told = hashlib.sha256(f"{_TRAILER}:AAAAAA==\n".encode()).hexdigest()
            wire += f"x-amz-trailer-signature:{_signature('TRAILER', previous, told)}\r\n".encode()
    return bytes(wire + b"\r\n")


def run_chunked_writing(data: bytes) -> None:
    """Kind, length of pieces and of chunks, a byte each, and the payload: it comes back."""
    if len(data) < 4:
        return
    kind, cut, chunk_bytes, payload = _KINDS[data[0] % len(_KINDS)], data[1], data[2], data[3:]
    wire = write_chunked(payload, kind=kind, chunk_bytes=chunk_bytes)
    is_plain = kind is PayloadKind.STREAMING_SIGNED
    names = () if is_plain else (_TRAILER,)
    told = {} if is_plain else {_TRAILER: "AAAAAA=="}
    found = _same_however_cut(
        lambda cut: _decoded(wire, kind=kind, size_bytes=len(payload), names=names, cut=cut),
        len(wire),
        cut,
    )
    assert found == ("", payload, told)


def _form(body: bytes, cut: int) -> _Result:
    parser = form_data.FormParser(BOUNDARY)
    file = bytearray()
    code = ""
    with target.s3_refusals():
        try:
            for piece in target.pieces(body, cut):
                for part in parser.feed(piece):
                    file += part
            for part in parser.close():
                file += part
        except s3_error.S3Error as exc:
            code = exc.code
            raise
    return (code, b"", None) if code else (code, bytes(file), (parser.fields, parser.filename))


def run_forms(data: bytes) -> None:
    """The length of pieces, a byte, and a form."""
    _same_however_cut(lambda cut: _form(data[1:], cut), len(data), data[0] if data else 0)


def run_form_writing(data: bytes) -> None:
    """The length of pieces, a byte, and a file: it comes back, with a field before it.

    A file that holds a delimiter is cut off there, as a form's writer must see to.
    """
    if not data:
        return
    # The line break of a delimiter may be that of the empty line before the file.
    file = (b"\r\n" + data[1:]).partition(b"\r\n--" + BOUNDARY)[0][2:]
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n--xyz\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a\\\\b"\r\n\r\n'
        + file
        + b"\r\n--xyz--\r\n"
    )
    found = _same_however_cut(lambda cut: _form(body, cut), len(body), data[0])
    assert found == ("", file, ([form_data.Field("key", "k")], "a\\\\b"))


def run_form_heads(data: bytes) -> None:
    """The headers of a part, and a form's Content-Type."""
    with target.s3_refusals():
        head = form_headers.part_head(data)
        assert head.name
    with target.s3_refusals():
        boundary = form_headers.boundary_of(target.text(data))
        assert 1 <= len(boundary) <= form_headers.BOUNDARY_BYTES_MAX


def run_post_policies(data: bytes) -> None:
    """A form's policy, as its document or as the field holds it."""
    for encoded in (base64.b64encode(data).decode(), data.decode("utf-8", "replace")):
        with target.s3_refusals():
            policy = post_policy.parse(encoded)
            fields = {"bucket": "b", "key": "user/eric/k", "content-type": "image/a, image/b"}
            policy.check(fields, now_ns=0)


def _policy(*conditions: object, **more: object) -> bytes:
    document: Mapping[str, object] = {
        "expiration": "2026-11-29T12:00:00Z",
        "conditions": conditions,
        **more,
    }
    return json.dumps(document).encode()


_PART: Final = b'--xyz\r\nContent-Disposition: form-data; name="'

TARGETS: Final = (
    target.Target(
        name="chunked",
        run=run_chunked,
        seeds=tuple(
            bytes([number, cut, len(payload)])
            + write_chunked(payload, kind=kind, chunk_bytes=chunk_bytes)
            for number, kind in enumerate(_KINDS)
            for cut, payload, chunk_bytes in ((0, b"", 1), (3, b"hello", 2), (7, b"a" * 40, 20))
        ),
        tokens=(
            b"\r\n",
            b"0\r\n",
            b"5\r\nhello\r\n",
            b";chunk-signature=",
            _TRAILER.encode() + b":AAAAAA==\r\n",
            b"x-amz-trailer-signature:",
            b"ffffffffffffffff",
            b"\r",
            b"\n",
            b"-",
            b"0x",
        ),
    ),
    target.Target(
        name="chunked writing",
        run=run_chunked_writing,
        seeds=(b"\x01\x07\x40" + b"a" * 100, b"\x00\x03\x05hello", b"\x02\x00\x01hello"),
        tokens=(b"\r\n", b"0\r\n\r\n", b"\0"),
    ),
    target.Target(
        name="forms",
        run=run_forms,
        seeds=(
            b"\x05"
            + _PART
            + b'key"\r\n\r\nk\r\n'
            + _PART
            + b'file"; filename="f"\r\n\r\n'
            + b"data" * 24
            + b"\r\n--xyz--\r\n",
            b"\x00" + _PART + b'file"\r\nContent-Type: text/plain\r\n\r\n\r\n--xyz\r\n\r\n--xyz--',
        ),
        tokens=(
            b"\r\n--xyz\r\n",
            b"\r\n--xyz--",
            b"\r\n--xyz",
            b"--xyz ",
            _PART + b'k"\r\n\r\n',
            _PART + b'file"\r\n\r\n',
            b"\r\n\r\n",
            b"\r",
            b"-",
            b'"',
            b";",
        ),
    ),
    target.Target(
        name="form writing",
        run=run_form_writing,
        seeds=(b"\x00data", b"\x03\r\n--xy\r\n--\r\r\n-", b"\x01"),
        tokens=(b"\r\n--xy", b"\r", b"\r\n", b"--xyz--", b"-"),
    ),
    target.Target(
        name="form heads",
        run=run_form_heads,
        seeds=(
            b'Content-Disposition: form-data; name="a"; filename="C:\\d\\"f"\r\nContent-Type: a/b',
            b'multipart/form-data; boundary="a b"; charset=utf-8',
        ),
        tokens=(
            b"; ",
            b"=",
            b'"',
            b'\\"',
            b"\\",
            b"\r\n",
            b":",
            b" a=b;",
            b'name="',
            b"content-transfer-encoding: base64",
        ),
    ),
    target.Target(
        name="post policies",
        run=run_post_policies,
        seeds=(
            _policy({"bucket": "b"}, ["starts-with", "$key", "user/"], ["eq", "$acl", "private"]),
            _policy(["content-length-range", 1, "10"], ["starts-with", "$Content-Type", "image/"]),
            b'{"expiration": "2026-11-29T12:00:00Z", "conditions": [{"key": "\\$a\\v\\ud800"}]}',
            base64.b64encode(_policy()),
            _policy(json.loads("[" * 200 + "]" * 200)),
        ),
        tokens=(
            b'["starts-with", "$key", ""]',
            b'{"a": "b"}',
            b'"expiration": ',
            b'"conditions": ',
            b'"content-length-range"',
            b"[",
            b"]",
            b"{",
            b"}",
            b"\\$",
            b"\\v",
            b"\\ud800",
            b"1e999",
            b"NaN",
            b"-",
            b",",
        ),
    ),
)
