"""HTTP answers of servers of all kinds, cut anywhere."""

from __future__ import annotations

import pytest

from couchestor_bench.engine import http_answers, operations, signed_requests
from couchestor_bench.workload import choices

PLAIN = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 5\r\n\r\nhello'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
)
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


def read(data: bytes, *, piece_bytes: int, keep: bool = True) -> http_answers.Answer:
    reader = http_answers.AnswerReader()
    reader.expect(keep=keep)
    found = None
    for begin in range(0, len(data), piece_bytes):
        assert found is None, "whole before its end"
        found = reader.feed(data[begin : begin + piece_bytes])
    assert found is not None
    return found


@pytest.mark.parametrize("data", [PLAIN, CHUNKED, CONTINUED])
@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1000])
def test_an_answer_is_whole_with_its_last_byte(data: bytes, piece_bytes: int) -> None:
    found = read(data, piece_bytes=piece_bytes)
    assert (found.status, found.body_bytes, found.kept) == (200, 5, b"hello")
    assert read(data, piece_bytes=piece_bytes, keep=False).kept == b""


def test_an_answer_that_only_the_end_of_the_connection_ends() -> None:
    reader = http_answers.AnswerReader()
    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhel") is None
    assert reader.feed(b"lo") is None
    found = reader.end()
    assert found is not None
    assert (found.body_bytes, found.closes) == (5, True)
    reader.expect()
    assert reader.feed(PLAIN[:-1]) is None
    assert reader.end() is None


def test_answers_without_a_body_whatever_they_announce() -> None:
    reader = http_answers.AnswerReader()
    reader.expect(headless=True)
    found = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert found is not None
    assert found.body_bytes == 0
    reader.expect()
    assert reader.feed(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") is not None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        PLAIN + b"more",
        CHUNKED + b"more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * http_answers.HEAD_BYTES_MAX,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(http_answers.AnswerError):
        http_answers.AnswerReader().feed(data)


def answer(status: int, kept: bytes = b"", body_bytes: int = 0) -> http_answers.Answer:
    return http_answers.Answer(status, body_bytes, kept, b'\r\nETag: "e"\r\n', False)


def test_errors_go_by_their_s3_code() -> None:
    body = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"
    assert http_answers.failure_of(answer(404, body)) == "NoSuchKey"
    assert http_answers.failure_of(answer(502, b"<html>")) == "HTTP 502"
    assert http_answers.failure_of(answer(200)) == ""
    # Completing an upload may fail after its 200.
    assert http_answers.failure_of(answer(200, body)) == "NoSuchKey"


def test_a_body_of_another_length_is_a_failure() -> None:
    request = signed_requests.Request(b"", expected_bytes=10)
    single = operations.Single(choices.Choice("get", 0), request, 10)
    assert not single.advance(answer(200, body_bytes=9))
    assert single.failure == "WrongLength"


class Requests(signed_requests.SignedRequests):
    """An object of 25 bytes; requests tell what they are."""

    def __init__(self) -> None:
        pass

    def size_of(self, key_index: int) -> int:
        return 25

    def begin_upload(self, key_index: int) -> signed_requests.Request:
        return signed_requests.Request(b"begin")

    def part(self, key_index: int, upload_id: str, number: int) -> signed_requests.Request:
        return signed_requests.Request(f"part {number} of {upload_id}".encode())

    def complete_upload(
        self, key_index: int, upload_id: str, etags: object
    ) -> signed_requests.Request:
        return signed_requests.Request(f"complete {upload_id} {etags}".encode())

    def abort_upload(self, key_index: int, upload_id: str) -> signed_requests.Request:
        return signed_requests.Request(f"abort {upload_id}".encode())


BEGUN = answer(200, b"<InitiateMultipartUploadResult><UploadId>a&amp;b</UploadId>")


def test_an_upload_goes_through_its_parts() -> None:
    upload = operations.Upload(choices.Choice("multipart", 0), Requests(), part_bytes=10)
    told = [upload.request.head]
    for each in (BEGUN, answer(200), answer(200), answer(200)):
        assert upload.advance(each)
        told.append(upload.request.head)
    assert not upload.advance(answer(200))
    assert told[:4] == [b"begin", b"part 1 of a&b", b"part 2 of a&b", b"part 3 of a&b"]
    assert told[4].startswith(b"complete a&b")
    assert (upload.failure, upload.size_bytes) == ("", 25)


def test_an_upload_that_fails_is_given_up() -> None:
    upload = operations.Upload(choices.Choice("multipart", 0), Requests(), part_bytes=10)
    assert upload.advance(BEGUN)
    assert upload.advance(answer(503, b"<Error><Code>SlowDown</Code></Error>"))
    assert upload.request.head == b"abort a&b"
    assert not upload.advance(answer(204))
    assert upload.failure == "SlowDown"


def test_an_upload_that_does_not_begin_has_nothing_to_give_up() -> None:
    upload = operations.Upload(choices.Choice("multipart", 0), Requests(), part_bytes=10)
    assert not upload.advance(answer(200, b"<nothing/>"))
    assert upload.failure == "NoUploadId"
