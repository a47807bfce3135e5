"""Bytes that are not HTTP, or HTTP meant to deceive, against the real daemon."""

from __future__ import annotations

import time
import typing
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process, hostile_client

OLD: typing.Final = b"the version before"
LARGE_BYTES: typing.Final = 24 << 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("http")) as victim:
        victim.put("old", OLD)
        victim.put("large", bytes(range(256)) * (LARGE_BYTES // 256))
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    assert node.stored("old") == OLD
    assert node.stored("new") is None
    node.assert_well()


def _put(victim: hostile_client.Victim, framing: bytes, body: bytes) -> bytes:
    """A well signed PUT whose body is framed by the lines given."""
    signed = hostile_client.head("PUT", hostile_client.target_of("new"), victim.sign("PUT", "new"))
    return signed[:-2] + framing + b"\r\n" + body


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 18446744073709551621\r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"X-A: b\r\n Content-Length: 5\r\n",
        b"X-A: a\0b\r\nContent-Length: 5\r\n",
        b"X-A: a\x01b\r\nContent-Length: 5\r\n",
        b"X-A: b\nContent-Length: 5\r\n",
        b"Host: elsewhere\r\nContent-Length: 5\r\n",
        b": nameless\r\nContent-Length: 5\r\n",
    ],
)
def test_framing_that_two_servers_could_read_differently(
    victim: hostile_client.Victim, framing: bytes
) -> None:
    smuggled = victim.request("DELETE", "old")
    for body in (b"hello", b"5\r\nhello\r\n0\r\n\r\n"):
        with victim.connection() as connection:
            connection.send(_put(victim, framing, body + smuggled))
            assert connection.answer().outcome == ("BadRequest", 400)
            assert connection.is_closed(), "what follows could be taken for a request"


def test_a_chunk_that_is_none_after_a_refusal(victim: hostile_client.Victim) -> None:
    content = _put(victim, b"Transfer-Encoding: chunked\r\n", b"5\r\nhel")
    with victim.connection() as connection:
        connection.send(content.replace(b"Signature=", b"Signature=0"))
        assert connection.answer().status == 403
        connection.send(b"lo\r\nzz\r\n" + victim.request("DELETE", "old"))
        assert connection.is_closed()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 64 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /proof/old HTTP/3.7\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /proof/old HTTP/1.1\r\n\r\n",
        b"G\xc3\x8bT /proof/old HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_garbage_first_and_pipelined(victim: hostile_client.Victim, garbage: bytes) -> None:
    with victim.connection() as connection:
        connection.send(garbage)
        assert connection.answer().outcome == ("BadRequest", 400)
        assert connection.is_closed()
    with victim.connection() as connection:
        connection.send(victim.request("GET", "old"))
        assert connection.answer().body == OLD
        connection.send(garbage)
        assert connection.answer().outcome == ("BadRequest", 400)
        assert connection.is_closed()


def test_pipelined_requests_are_answered_in_order(victim: hostile_client.Victim) -> None:
    wanted = [OLD[:length] for length in range(1, len(OLD))]
    requests = [
        victim.request("GET", "old", headers={"range": f"bytes=0-{len(part) - 1}"})
        for part in wanted
    ]
    with victim.connection() as connection:
        connection.send(b"".join(requests))
        assert [connection.answer().body for _ in wanted] == wanted


def test_headers_without_measure(victim: hostile_client.Victim) -> None:
    target = hostile_client.target_of("new")
    host = f"Host: {victim.server.host}\r\n".encode()
    for content in (
        b"PUT " + target.encode() + b"?" + b"q" * 70_000 + b" HTTP/1.1\r\n" + host,
        _put(victim, b"X-A: " + b"a" * 70_000 + b"\r\n", b""),
        _put(victim, b"X-" + b"A" * 70_000 + b": a\r\n", b""),
        _put(victim, b"".join(b"X-A%d: a\r\n" % i for i in range(5000)), b""),
    ):
        with victim.connection() as connection:
            connection.send(content)
            assert connection.answer().outcome == ("RequestHeaderSectionTooLarge", 400)
            assert connection.is_closed()


def test_metadata_over_two_kibibytes(victim: hostile_client.Victim) -> None:
    for headers in (
        {"x-amz-meta-a": "a" * 2048},
        {f"x-amz-meta-{number:02d}": "a" * 100 for number in range(21)},
        {"x-amz-meta-" + "n" * 2040: "a" * 9},
    ):
        content = victim.request("PUT", "new", body=b"x", headers=headers)
        assert victim.refused(content) == ("MetadataTooLarge", 400)
    most = {"x-amz-meta-a": "a" * 2047}
    assert victim.ask(victim.request("PUT", "most", body=b"x", headers=most)).status == 200


def test_headers_that_are_no_text_are_kept_or_replaced_but_never_break_the_node(
    victim: hostile_client.Victim,
) -> None:
    for name in ("Content-Type", "Content-Encoding", "Cache-Control", "Expires"):
        framing = name.encode() + b": a\xff\xfe\xc3\xa9\r\nContent-Length: 1\r\n"
        content = _put(victim, framing, b"x")
        assert victim.ask(content).status == 200, name
        head = victim.ask(victim.request("HEAD", "new"), "HEAD")
        assert head.status == 200, name
        victim.s3.delete_object(Bucket=daemon_process.BUCKET, Key="new")


def test_answers_cannot_be_split_by_overrides(victim: hostile_client.Victim) -> None:
    for value in ("a\r\nSet-Cookie: b", "a\nb", "a\x01b", "a\x7fb"):
        query = {"response-content-type": value}
        assert victim.refused(victim.request("GET", "old", query=query)) == ("InvalidArgument", 400)


def _taken(reader: hostile_client.Connection) -> int:
    """Bytes of the answer that still come."""
    taken = 0
    try:
        while content := reader.receive(1 << 20):
            taken += len(content)
    except ConnectionResetError:
        pass
    return taken


def test_readers_that_stop_are_cut_off_and_disturb_nobody(victim: hostile_client.Victim) -> None:
    readers = [hostile_client.Connection(victim.server.port) for _ in range(100)]
    for reader in readers:
        reader.send(victim.request("GET", "large"))
    assert victim.stored("large") is not None
    victim.put("beside", bytes(5 << 20))
    time.sleep(3 * hostile_client.STALL_SECONDS)
    for reader in readers:
        assert _taken(reader) < LARGE_BYTES, "nothing was cut off"
        reader.close()


def test_short_answers_that_nobody_takes_are_dropped(victim: hostile_client.Victim) -> None:
    short = victim.request("GET", "large", headers={"range": "bytes=0-131071"})
    with victim.connection() as connection:
        for _ in range(200):
            connection.send(short)
        time.sleep(3 * hostile_client.STALL_SECONDS)
        assert _taken(connection) < 200 * 131_072, "nothing was cut off"


def test_a_slow_reader_that_goes_on_reading_gets_everything(
    victim: hostile_client.Victim,
) -> None:
    wanted = 6 << 20
    headers = {"range": f"bytes=0-{wanted - 1}"}
    with victim.connection() as connection:
        connection.send(victim.request("GET", "large", headers=headers))
        taken = 0
        # A piece of 1 MiB takes longer than the stall limit.
        while taken < wanted:
            time.sleep(0.14)
            content = connection.receive(128 << 10)
            assert content, f"cut off after {taken} bytes"
            taken += len(content)
