"""Bodies that are not what was announced, against the real daemon: nothing of them is stored."""

from __future__ import annotations

import base64
import hashlib
import time
import typing
import zlib
from collections.abc import Callable, Iterator

import pytest
from tests.functional import hostile_client

OLD: typing.Final = b"the version before"
SIZES: typing.Final = (1000, 5 << 20)
"""One body for the log, one of more than a stripe."""
CRC32: typing.Final = "x-amz-checksum-crc32"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("bodies")) as victim:
        victim.put("old", OLD)
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    assert node.stored("old") == OLD
    assert node.stored("new") is None
    node.assert_well()


def crc32_of(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("key", ["old", "new"])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_digests_that_do_not_match(
    victim: hostile_client.Victim, key: str, size_bytes: int
) -> None:
    body = b"b" * size_bytes
    other = hashlib.md5(b"another").digest()
    wrong = {
        "content-md5": base64.b64encode(other).decode(),
        CRC32: "AAAAAA==",
        "x-amz-checksum-crc32c": "AAAAAA==",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=",
        "x-amz-checksum-sha1": base64.b64encode(bytes(20)).decode(),
        "x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode(),
    }
    for name, value in wrong.items():
        content = victim.request("PUT", key, body=body, headers={name: value})
        assert victim.refused(content) == ("BadDigest", 400), name


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-md5": "AAAA"}, "InvalidDigest"),
        ({"content-md5": "!" * 24}, "InvalidDigest"),
        ({"content-md5": ""}, "InvalidDigest"),
        ({CRC32: "bad"}, "BadDigest"),
        ({CRC32: "AAAAAAA="}, "BadDigest"),
        ({"x-amz-checksum-sha256": "AAAAAA=="}, "BadDigest"),
        ({CRC32: "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}, "InvalidRequest"),
        ({"x-amz-checksum-md5": "AAAA"}, "InvalidRequest"),
        ({"x-amz-trailer": CRC32}, "InvalidRequest"),
        ({"x-amz-trailer": "x-amz-checksum-crc7"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "SHA1", CRC32: "AAAAAA=="}, "InvalidRequest"),
    ],
)
def test_digests_that_make_no_sense(
    victim: hostile_client.Victim, headers: dict[str, str], code: str
) -> None:
    for key in ("old", "new"):
        content = victim.request("PUT", key, body=b"body", headers=headers)
        assert victim.refused(content) == (code, 400)


Spoil = Callable[[hostile_client.ChunkedUpload, bytes], bytes]


def _right(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body) + upload.chunk(b"") + upload.trailers([])


def _no_end(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body)


def _no_last_line(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body) + upload.chunk(b"")


def _short(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body[:-1]) + upload.chunk(b"") + upload.trailers([])


def _long(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body + b"x") + upload.chunk(b"") + upload.trailers([])


def _one_more_chunk(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body) + upload.chunk(b"x") + upload.chunk(b"") + upload.trailers([])


def _other_bytes(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return _right(upload, body).replace(body, body[:-1] + b"#")


def _unsigned_chunk(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body) + upload.chunk(b"") + upload.trailers([])


def _forged(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body, signature="0" * 64) + upload.chunk(b"") + upload.trailers([])


def _forged_end(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return upload.chunk(body) + upload.chunk(b"", signature="0" * 64) + upload.trailers([])


def _swapped(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    half = len(body) // 2
    first, second = upload.chunk(body[:half]), upload.chunk(body[half:])
    return second + first + upload.chunk(b"") + upload.trailers([])


def _bad_size(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return b"xyz\r\n" + _right(upload, body)


def _negative_size(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return b"-5" + _right(upload, body)


def _underscored_size(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return b"0_" + _right(upload, body)


def _endless_header(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return b"5;" + b"x" * 5000 + b"\r\n" + _right(upload, body)


def _unannounced_trailer(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    data = upload.chunk(body) + upload.chunk(b"")
    return data + upload.trailers([(CRC32, crc32_of(body))])


def _tail(upload: hostile_client.ChunkedUpload, body: bytes) -> bytes:
    return _right(upload, body) + b"GET /proof/old HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("key", ["old", "new"])
@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (_no_end, ("IncompleteBody", 400)),
        (_no_last_line, ("IncompleteBody", 400)),
        (_short, ("IncompleteBody", 400)),
        (_long, ("IncompleteBody", 400)),
        (_one_more_chunk, ("IncompleteBody", 400)),
        (_other_bytes, ("SignatureDoesNotMatch", 403)),
        (_unsigned_chunk, ("IncompleteBody", 400)),
        (_forged, ("SignatureDoesNotMatch", 403)),
        (_forged_end, ("SignatureDoesNotMatch", 403)),
        (_swapped, ("SignatureDoesNotMatch", 403)),
        (_bad_size, ("IncompleteBody", 400)),
        (_negative_size, ("IncompleteBody", 400)),
        (_underscored_size, ("IncompleteBody", 400)),
        (_endless_header, ("InvalidRequest", 400)),
        (_unannounced_trailer, ("MalformedTrailerError", 400)),
        (_tail, ("IncompleteBody", 400)),
    ],
)
def test_signed_chunks(
    victim: hostile_client.Victim,
    spoil: Spoil,
    outcome: tuple[str, int],
    size_bytes: int,
    key: str,
) -> None:
    body = b"c" * size_bytes
    upload = hostile_client.ChunkedUpload(
        victim, key, payload=hostile_client.SIGNED, decoded_bytes=len(body)
    )
    with victim.connection() as connection:
        connection.send(upload.request(spoil(upload, body)))
        assert connection.answer().outcome == outcome


@pytest.mark.parametrize(
    "payload", [hostile_client.SIGNED_TRAILER, hostile_client.UNSIGNED_TRAILER]
)
@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([(CRC32, "AAAAAA==")], ("BadDigest", 400)),
        ([(CRC32, "bad")], ("BadDigest", 400)),
        ([("x-amz-checksum-sha1", "AAAA")], ("MalformedTrailerError", 400)),
        ([(CRC32, "AAAAAA=="), (CRC32, "AAAAAA==")], ("MalformedTrailerError", 400)),
        ([("x-amz-meta-late", "1")], ("MalformedTrailerError", 400)),
        ([("no colon", "")], ("MalformedTrailerError", 400)),
        ([(CRC32, "A" * 9000)], ("InvalidRequest", 400)),
    ],
)
def test_trailers(
    victim: hostile_client.Victim,
    payload: str,
    lines: list[tuple[str, str]],
    outcome: tuple[str, int],
    size_bytes: int,
) -> None:
    body = b"t" * size_bytes
    for key in ("old", "new"):
        upload = hostile_client.ChunkedUpload(
            victim, key, payload=payload, decoded_bytes=len(body), trailer=CRC32
        )
        wire = upload.chunk(body) + upload.chunk(b"") + upload.trailers(lines)
        with victim.connection() as connection:
            connection.send(upload.request(wire))
            assert connection.answer().outcome == outcome


def test_trailers_that_are_missing_or_forged(victim: hostile_client.Victim) -> None:
    body = b"trailing"
    for payload, lines, signature, outcome in (
        (hostile_client.UNSIGNED_TRAILER, [], None, ("MalformedTrailerError", 400)),
        (hostile_client.SIGNED_TRAILER, [], None, ("IncompleteBody", 400)),
        (
            hostile_client.SIGNED_TRAILER,
            [(CRC32, crc32_of(body))],
            "0" * 64,
            ("SignatureDoesNotMatch", 403),
        ),
    ):
        upload = hostile_client.ChunkedUpload(
            victim, "new", payload=payload, decoded_bytes=len(body), trailer=CRC32
        )
        wire = upload.chunk(body) + upload.chunk(b"") + upload.trailers(lines, signature=signature)
        assert victim.ask(upload.request(wire)).outcome == outcome


@pytest.mark.parametrize(
    ("payload", "trailer"),
    [
        (hostile_client.SIGNED, ""),
        (hostile_client.SIGNED_TRAILER, CRC32),
        (hostile_client.UNSIGNED_TRAILER, CRC32),
    ],
)
def test_what_the_spoilt_bodies_are_made_of_is_right(
    node: hostile_client.Victim, payload: str, trailer: str
) -> None:
    body = bytes(range(256)) * 1200
    upload = hostile_client.ChunkedUpload(
        node, "right", payload=payload, decoded_bytes=len(body), trailer=trailer
    )
    wire = b"".join(upload.chunk(body[at : at + 70_000]) for at in range(0, len(body), 70_000))
    wire += upload.chunk(b"")
    wire += upload.trailers([(trailer, crc32_of(body))] if trailer else [])
    with node.connection() as connection:
        connection.send(upload.request(wire))
        answer = connection.answer()
        assert answer.status == 200, answer
        connection.send(node.request("HEAD", "right", headers={"x-amz-checksum-mode": "ENABLED"}))
        told = connection.answer("HEAD")
    assert node.stored("right") == body
    assert told.headers.get(CRC32) == (crc32_of(body) if trailer else None)
    assert "content-encoding" not in told.headers


@pytest.mark.parametrize("value", ["-1", "1e3", "x", "", "9" * 30])
def test_a_decoded_length_that_is_no_length(victim: hostile_client.Victim, value: str) -> None:
    headers = victim.sign(
        "PUT",
        "new",
        headers={"x-amz-decoded-content-length": value},
        payload_sha256=hostile_client.SIGNED,
    )
    headers["content-length"] = "5"
    content = hostile_client.head("PUT", hostile_client.target_of("new"), headers) + b"hello"
    code = "EntityTooLarge" if value.isdigit() else "InvalidArgument"
    assert victim.refused(content) == (code, 400)


@pytest.mark.parametrize("payload", [hostile_client.SIGNED, "UNSIGNED-PAYLOAD"])
def test_a_body_of_no_announced_length(victim: hostile_client.Victim, payload: str) -> None:
    headers = victim.sign("PUT", "new", payload_sha256=payload)
    content = hostile_client.head("PUT", hostile_client.target_of("new"), headers)
    assert victim.refused(content) == ("MissingContentLength", 411)


def test_a_body_longer_than_any_object(victim: hostile_client.Victim) -> None:
    headers = victim.sign("PUT", "new")
    headers["content-length"] = str((5 << 30) + 1)
    content = hostile_client.head("PUT", hostile_client.target_of("new"), headers)
    assert victim.refused(content, survives=False) == ("EntityTooLarge", 400)


@pytest.mark.parametrize("key", ["old", "new"])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_client_that_leaves_in_the_middle(
    victim: hostile_client.Victim, key: str, size_bytes: int
) -> None:
    request = victim.request("PUT", key, body=b"d" * size_bytes)
    for part in (0.1, 0.5, 0.999):
        with victim.connection() as connection:
            connection.send(request[: int(len(request) * part)])


@pytest.mark.parametrize("key", ["old", "new"])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_client_that_stalls_in_the_middle(
    victim: hostile_client.Victim, key: str, size_bytes: int
) -> None:
    request = victim.request("PUT", key, body=b"s" * size_bytes)
    begin = time.monotonic()
    with victim.connection() as connection:
        connection.send(request[:-10])
        assert connection.answer().outcome == ("RequestTimeout", 400)
        assert time.monotonic() - begin >= hostile_client.STALL_SECONDS
        assert connection.is_closed()


def test_a_client_that_never_sends_what_it_was_invited_to(victim: hostile_client.Victim) -> None:
    headers = victim.sign("PUT", "new")
    headers |= {"content-length": "5", "expect": "100-continue"}
    with victim.connection() as connection:
        connection.send(hostile_client.head("PUT", hostile_client.target_of("new"), headers))
        assert connection.answer().status == 100
        assert connection.answer().outcome == ("RequestTimeout", 400)
