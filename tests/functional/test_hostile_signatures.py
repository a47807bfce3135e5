"""Requests whose signature, date or claim is wrong, against the real daemon."""

from __future__ import annotations

import datetime
import hashlib
import typing
from collections.abc import Callable, Iterator

import pytest
from tests.functional import daemon_process, hostile_client

from couchestor_bench import signing

BODY: typing.Final = b"must not be stored"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("signatures")) as victim:
        victim.put("old", b"old")
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    node.assert_well()


Change = Callable[[dict[str, str]], object]


def _replace(old: str, new: str) -> Change:
    def change(headers: dict[str, str]) -> None:
        assert old in headers["authorization"]
        headers["authorization"] = headers["authorization"].replace(old, new)

    return change


def _spoil(headers: dict[str, str]) -> None:
    last = headers["authorization"][-1]
    headers["authorization"] = headers["authorization"][:-1] + ("0" if last != "0" else "1")


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (_spoil, ("SignatureDoesNotMatch", 403)),
        (_replace("Signature=", "Signature=ü"), ("SignatureDoesNotMatch", 403)),
        (_replace("AKIA", "BKIA"), ("InvalidAccessKeyId", 403)),
        (_replace("AWS4-HMAC-SHA256", "Bearer"), ("AccessDenied", 403)),
        (_replace("AWS4-HMAC-SHA256", "AWS"), ("InvalidRequest", 400)),
        (_replace("Credential=", "Credentials="), ("AuthorizationHeaderMalformed", 400)),
        (_replace("SignedHeaders=", "Signed="), ("AuthorizationHeaderMalformed", 400)),
        (_replace("Signature=", "Sig="), ("AuthorizationHeaderMalformed", 400)),
        (_replace("/s3/", "/ec2/"), ("AuthorizationHeaderMalformed", 400)),
        (_replace("us-east-1", "eu-west-9"), ("AuthorizationHeaderMalformed", 400)),
        (_replace("/20", "/x20"), ("AuthorizationHeaderMalformed", 400)),
        (_replace(", SignedH", ", Credential=x, SignedH"), ("AuthorizationHeaderMalformed", 400)),
        (lambda headers: headers.update(authorization=""), ("AccessDenied", 403)),
        (lambda headers: headers.update({"authorization": "x" * 9000}), ("AccessDenied", 403)),
        (lambda headers: headers.update({"x-amz-date": "yesterday"}), ("AccessDenied", 403)),
        (lambda headers: headers.update({"x-amz-meta-new": "1"}), ("AccessDenied", 403)),
        (
            lambda headers: headers.update({"x-amz-copy-source": "/proof/old"}),
            ("AccessDenied", 403),
        ),
        (
            lambda headers: headers.update({"x-amz-content-sha256": "short"}),
            ("InvalidArgument", 400),
        ),
        (lambda headers: headers.pop("x-amz-content-sha256"), ("InvalidRequest", 400)),
        (lambda headers: headers.pop("authorization"), ("AccessDenied", 403)),
    ],
)
def test_a_request_that_is_not_signed_as_it_should_be(
    victim: hostile_client.Victim, change: Change, outcome: tuple[str, int]
) -> None:
    for key, before in (("new", None), ("old", b"old")):
        headers = victim.sign("PUT", key)
        headers["content-length"] = str(len(BODY))
        change(headers)
        content = hostile_client.head("PUT", hostile_client.target_of(key), headers) + BODY
        assert victim.refused(content) == outcome
        assert victim.stored(key) == before


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_skewed_clock(victim: hostile_client.Victim, minutes: int) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    headers = victim.sign("PUT", "new", now=moment)
    headers["content-length"] = str(len(BODY))
    content = hostile_client.head("PUT", hostile_client.target_of("new"), headers) + BODY
    # Around midnight the credential's day is wrong as well; the skew is told first.
    assert victim.refused(content) == ("RequestTimeTooSkewed", 403)
    assert victim.stored("new") is None


def test_a_payload_that_is_not_what_was_signed(victim: hostile_client.Victim) -> None:
    for size_bytes in (10, 300_000):
        body = b"x" * size_bytes
        signed = hashlib.sha256(body).hexdigest()
        content = victim.request("PUT", "old", body=body, payload_sha256=signed)
        spoilt = content[:-1] + b"y"
        assert victim.refused(spoilt) == ("XAmzContentSHA256Mismatch", 400)
        assert victim.stored("old") == b"old"


def _presigned(
    victim: hostile_client.Victim,
    key: str,
    *,
    expires_seconds: int = 60,
    age_seconds: int = 0,
    query: dict[str, str] | None = None,
) -> str:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_seconds)
    return signing.presign(
        victim.server.credentials,
        "PUT",
        host=victim.server.host,
        path=hostile_client.path_of(key),
        query=query,
        expires_seconds=expires_seconds,
        now=moment,
    )


def _put(victim: hostile_client.Victim, target: str, **headers: str) -> bytes:
    told = {"host": victim.server.host, "content-length": str(len(BODY))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    return hostile_client.head("PUT", target, told) + BODY


def test_presigned_urls(victim: hostile_client.Victim) -> None:
    right = _presigned(victim, "new")
    cases = [
        (
            _put(victim, _presigned(victim, "new", expires_seconds=60, age_seconds=61)),
            "AccessDenied",
        ),
        (_put(victim, _presigned(victim, "new", expires_seconds=0)), "AccessDenied"),
        (_put(victim, _presigned(victim, "new", age_seconds=-1000)), "AccessDenied"),
        (_put(victim, right.replace("/new?", "/other?")), "SignatureDoesNotMatch"),
        (_put(victim, right + "&partNumber=1"), "SignatureDoesNotMatch"),
        (_put(victim, right, x_amz_copy_source="/proof/old"), "AccessDenied"),
        (_put(victim, right, x_amz_meta_a="1"), "AccessDenied"),
        (_put(victim, right, authorization="AWS4-HMAC-SHA256 x"), "InvalidArgument"),
        (_put(victim, right.replace("X-Amz-Expires=60", "X-Amz-Expires=604801")), ""),
        (_put(victim, right.replace("X-Amz-Expires=60", "X-Amz-Expires=-1")), ""),
        (_put(victim, right.replace("X-Amz-Expires=60", "X-Amz-Expires=")), ""),
        (_put(victim, right.replace("AKIA", "BKIA")), "InvalidAccessKeyId"),
        (_put(victim, right.replace("HMAC-SHA256", "HMAC-SHA1")), ""),
    ]
    for content, code in cases:
        wanted = (code, 403) if code else ("AuthorizationQueryParametersError", 400)
        if code == "InvalidArgument":
            wanted = (code, 400)
        assert victim.refused(content) == wanted, content[:300]
        assert victim.stored("new") is None
    assert victim.ask(_put(victim, right)).status == 200
    assert victim.stored("new") == BODY
    victim.s3.delete_object(Bucket=daemon_process.BUCKET, Key="new")


def test_headers_that_a_presigned_url_carries(victim: hostile_client.Victim) -> None:
    name = {"Bucket": daemon_process.BUCKET, "Key": "new"}
    target = _presigned(victim, "new", query={"x-amz-checksum-crc32": "AAAAAA=="})
    assert victim.refused(_put(victim, target)) == ("BadDigest", 400)
    target = _presigned(victim, "new", query={"x-amz-meta-a": "x" * 2048})
    assert victim.refused(_put(victim, target)) == ("MetadataTooLarge", 400)
    for moved in (
        {"x-amz-meta-a": "b\r\nSet-Cookie: c"},
        {"x-amz-meta-a": "\x01"},
        {"x-amz-meta-a b": "c"},
        {"x-amz-meta-ü": "c"},
        {"x-amz-meta-a:\r\nb": "c"},
    ):
        target = _presigned(victim, "new", query=moved)
        assert victim.refused(_put(victim, target)) == ("InvalidArgument", 400)
    assert victim.stored("new") is None
    target = _presigned(victim, "new", query={"X-Amz-Meta-Colour": "blue"})
    assert victim.ask(_put(victim, target)).status == 200
    assert victim.s3.head_object(**name)["Metadata"] == {"colour": "blue"}
    # Stored as an empty object when taken for a plain PUT.
    target = _presigned(victim, "new", query={"x-amz-copy-source": "/proof/old"})
    assert b"CopyObjectResult" in victim.ask(_put(victim, target)).body
    assert victim.stored("new") == b"old"
    victim.s3.delete_object(**name)
