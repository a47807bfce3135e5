"""Bodies in HTTP chunks whose length nothing announces, against the real daemon."""

from __future__ import annotations

import base64
import hashlib
import random
import typing
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process, hostile_client

from couchestor_bench import signing

MIB: typing.Final = 1 << 20
WHOLE_STRIPE: typing.Final = 4 * MIB


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("unknown")) as victim:
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    assert node.stored("new") is None
    node.assert_well()


def chunked(body: bytes, *, seed: int = 1) -> bytes:
    """A body in chunks of all lengths, with its end."""
    rng, pieces, position = random.Random(seed), [], 0
    while position < len(body):
        taken = body[position : position + rng.choice((1, 50, 5_000, 70_000, 900_000))]
        pieces.append(b"%x\r\n%b\r\n" % (len(taken), taken))
        position += len(taken)
    return b"".join(pieces) + b"0\r\n\r\n"


def request(
    victim: hostile_client.Victim,
    framed: bytes,
    key: str = "new",
    *,
    query: dict[str, str] | None = None,
    **headers: str,
) -> bytes:
    """A well signed PUT with these bytes behind its headers."""
    payload = headers.pop("payload", signing.UNSIGNED_PAYLOAD)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    signed = victim.sign("PUT", key, query=query, headers=told, payload_sha256=payload)
    signed["transfer-encoding"] = "chunked"
    return hostile_client.head("PUT", hostile_client.target_of(key, query), signed) + framed


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, 1000, 300_000, WHOLE_STRIPE - 1, WHOLE_STRIPE, WHOLE_STRIPE + 1, 2 * WHOLE_STRIPE + 777],
)
def test_what_comes_is_stored(victim: hostile_client.Victim, size_bytes: int) -> None:
    body = random.Random(size_bytes).randbytes(size_bytes)
    digest = hashlib.md5(body)
    answer = victim.ask(
        request(
            victim,
            chunked(body, seed=size_bytes),
            "there",
            payload=hashlib.sha256(body).hexdigest(),
            content_md5=base64.b64encode(digest.digest()).decode(),
        )
    )
    assert (answer.status, answer.headers["etag"]) == (200, f'"{digest.hexdigest()}"')
    assert victim.stored("there") == body


def test_it_is_invited(victim: hostile_client.Victim) -> None:
    with victim.connection() as connection:
        connection.send(request(victim, b"", "there", expect="100-continue"))
        assert connection.answer().status == 100
        connection.send(chunked(b"invited"))
        assert connection.answer().status == 200
        connection.send(victim.request("HEAD"))
        assert connection.answer("HEAD").status == 200, "the connection goes on"
    assert victim.stored("there") == b"invited"


def test_parts_as_well(victim: hostile_client.Victim) -> None:
    names = {"Bucket": daemon_process.BUCKET, "Key": "there"}
    upload = victim.s3.create_multipart_upload(**names)["UploadId"]
    bodies = [random.Random(number).randbytes(5 * MIB + number) for number in (1, 2)]
    parts = []
    for number, body in enumerate(bodies, 1):
        query = {"partNumber": str(number), "uploadId": upload}
        answer = victim.ask(request(victim, chunked(body), "there", query=query))
        assert answer.status == 200
        parts.append({"PartNumber": number, "ETag": answer.headers["etag"]})
    victim.s3.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
    assert victim.stored("there") == b"".join(bodies)


@pytest.mark.parametrize("size_bytes", [1000, WHOLE_STRIPE + 1000])
def test_one_that_breaks_off_is_nothing(victim: hostile_client.Victim, size_bytes: int) -> None:
    whole = request(victim, chunked(bytes(size_bytes)))
    for cut in (5, 6, size_bytes // 2):
        with victim.connection() as connection:
            connection.send(whole[:-cut])


@pytest.mark.parametrize("size_bytes", [1000, WHOLE_STRIPE + 1000])
def test_one_that_becomes_garbage_is_nothing(
    victim: hostile_client.Victim, size_bytes: int
) -> None:
    broken = request(victim, chunked(bytes(size_bytes))[:-5] + b"zz\r\n")
    with victim.connection() as connection:
        connection.send(broken + victim.request("DELETE", "there"))
        assert connection.answer().status == 400
        assert connection.is_closed(), "what follows could be taken for a request"


def test_digests_are_held_against_it(victim: hostile_client.Victim) -> None:
    framed = chunked(b"one body")
    other = hashlib.sha256(b"another").hexdigest()
    assert victim.refused(request(victim, framed, payload=other)) == (
        "XAmzContentSHA256Mismatch",
        400,
    )
    wrong = base64.b64encode(hashlib.md5(b"another").digest()).decode()
    assert victim.refused(request(victim, framed, content_md5=wrong)) == ("BadDigest", 400)


def test_documents_and_signed_chunks_tell_their_length(victim: hostile_client.Victim) -> None:
    document = chunked(b"<Tagging><TagSet/></Tagging>")
    content = request(victim, document, query={"tagging": ""})
    assert victim.refused(content, survives=False) == ("MissingContentLength", 411)
    content = request(victim, chunked(b"x"), payload=hostile_client.SIGNED)
    assert victim.refused(content, survives=False) == ("MissingContentLength", 411)
