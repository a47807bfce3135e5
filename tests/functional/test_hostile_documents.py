"""XML documents and multipart requests that are wrong, against the real daemon."""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process, hostile_client

OLD: typing.Final = b"the version before"
PART: typing.Final = b"p" * (5 << 20)
DECLARATION: typing.Final = b'<?xml version="1.0"?>'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    with hostile_client.attacked(tmp_path_factory.mktemp("documents")) as victim:
        victim.put("old", OLD)
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    assert node.stored("old") == OLD
    node.assert_well()


@pytest.fixture
def upload_id(victim: hostile_client.Victim) -> Iterator[str]:
    name = {"Bucket": daemon_process.BUCKET, "Key": "old"}
    upload_id = str(victim.s3.create_multipart_upload(**name)["UploadId"])
    yield upload_id
    victim.s3.abort_multipart_upload(**name, UploadId=upload_id)


def _bomb(root: bytes) -> bytes:
    entities = b"".join(
        b'<!ENTITY e%d "%s">' % (level, b"&e%d;" % (level - 1) * 10) for level in range(1, 12)
    )
    head = DECLARATION + b'<!DOCTYPE b [<!ENTITY e0 "boom">' + entities + b"]>"
    return head + b"<%s>&e11;</%s>" % (root, root)


def _external(root: bytes) -> bytes:
    head = DECLARATION + b'<!DOCTYPE b [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    return head + b"<%s>&e;</%s>" % (root, root)


_PUT: typing.Final = {
    b"LegalHold": ("old", "legal-hold"),
    b"LifecycleConfiguration": ("", "lifecycle"),
    b"ObjectLockConfiguration": ("", "object-lock"),
}
"""Root of a document -> key and sub-resource that it is put to."""


@pytest.mark.parametrize("root", [b"Delete", b"CompleteMultipartUpload", *_PUT])
@pytest.mark.parametrize(
    "make",
    [
        lambda root: b"",
        lambda root: b"not xml",
        lambda root: b"\x00\xff\xfe",
        lambda root: b"<%s" % root,
        lambda root: b"<%s/>" % root,
        lambda root: b"<%s></%s><%s/>" % (root, root, root),
        lambda root: b"<Other><Key>old</Key></Other>",
        lambda root: b"<a>" * 100_000,
        lambda root: b"<%s>" % root + b"<a>" * 50_000 + b"</a>" * 50_000 + b"</%s>" % root,
        lambda root: b"<%s>" % root + b"<a/>" * 200_000 + b"</%s>" % root,
        lambda root: b"<%s %s/>" % (root, b" ".join(b'a%d="b"' % i for i in range(50_000))),
        _bomb,
        _external,
        lambda root: b'<?xml version="1.0" encoding="UTF-7"?><%s/>' % root,
        lambda root: f"<{root.decode()}/>".encode("utf-16"),
        lambda root: b"<%s>&undefined;</%s>" % (root, root),
        lambda root: b"<%s>&#0;</%s>" % (root, root),
    ],
)
def test_documents_that_are_not_what_was_asked_for(
    victim: hostile_client.Victim,
    upload_id: str,
    root: bytes,
    make: typing.Callable[[bytes], bytes],
) -> None:
    body = make(root)
    if root == b"Delete":
        content = victim.request("POST", body=body, query={"delete": ""})
    elif root in _PUT:
        key, sub_resource = _PUT[root]
        content = victim.request("PUT", key, body=body, query={sub_resource: ""})
    else:
        content = victim.request("POST", "old", body=body, query={"uploadId": upload_id})
    assert victim.refused(content) == ("MalformedXML", 400)


def test_a_document_without_measure(victim: hostile_client.Victim, upload_id: str) -> None:
    body = b"<Delete>" + b" " * (9 << 20) + b"</Delete>"
    for content in (
        victim.request("POST", body=body, query={"delete": ""}),
        victim.request("POST", "old", body=body, query={"uploadId": upload_id}),
        victim.request("PUT", body=body),
    ):
        assert victim.ask(content).outcome == ("MaxMessageLengthExceeded", 400)


def test_deleting_the_longest_keys_written_as_references(victim: hostile_client.Victim) -> None:
    keys = [b"&quot;" * 1020 + b"%04d" % number for number in range(1000)]
    victim.put('"' * 1020 + "0007", b"doomed")
    document = b"".join(b"<Object><Key>%s</Key></Object>" % key for key in keys)
    content = victim.request("POST", body=b"<Delete>%s</Delete>" % document, query={"delete": ""})
    assert victim.ask(content).body.count(b"<Deleted>") == 1000
    assert victim.stored('"' * 1020 + "0007") is None


def _delete(count: int) -> bytes:
    keys = b"".join(b"<Object><Key>old%d</Key></Object>" % i for i in range(count))
    return b"<Delete>" + keys + b"</Delete>"


def test_deleting_one_key_too_many(victim: hostile_client.Victim) -> None:
    victim.put("old7", b"kept")
    content = victim.request("POST", body=_delete(1001), query={"delete": ""})
    assert victim.refused(content) == ("MalformedXML", 400)
    assert victim.stored("old7") == b"kept"
    content = victim.request("POST", body=_delete(1000), query={"delete": ""})
    assert victim.ask(content).body.count(b"<Deleted>") == 1000
    assert victim.stored("old7") is None


def test_a_delete_document_with_a_wrong_digest(victim: hostile_client.Victim) -> None:
    body = b"<Delete><Object><Key>old</Key></Object></Delete>"
    for headers in (
        {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"x-amz-checksum-crc32": "AAAAAA=="},
    ):
        content = victim.request("POST", body=body, query={"delete": ""}, headers=headers)
        assert victim.refused(content) == ("BadDigest", 400)
    signed = hashlib.sha256(b"another").hexdigest()
    content = victim.request("POST", body=body, query={"delete": ""}, payload_sha256=signed)
    assert victim.refused(content) == ("XAmzContentSHA256Mismatch", 400)


def _complete(*parts: tuple[object, str], extra: str = "") -> bytes:
    lines = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{extra}</Part>"
        for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>".encode()


def test_completions_that_do_not_fit(victim: hostile_client.Victim, upload_id: str) -> None:
    name = {"Bucket": daemon_process.BUCKET, "Key": "old", "UploadId": upload_id}
    etags = {
        number: str(victim.s3.upload_part(**name, PartNumber=number, Body=body)["ETag"])
        for number, body in ((1, PART), (2, b"short"), (3, b"end"))
    }
    one, two, three = ((number, etags[number]) for number in (1, 2, 3))
    digest = "<ChecksumSHA256>AAAA</ChecksumSHA256>"
    for body, outcome in (
        (_complete(one, two, three), ("EntityTooSmall", 400)),
        (_complete(two, one), ("InvalidPartOrder", 400)),
        (_complete(one, (4, etags[1])), ("InvalidPart", 400)),
        (_complete(one, (2, etags[3])), ("InvalidPart", 400)),
        (_complete(one, (2, "x" * 5000)), ("InvalidPart", 400)),
        (_complete((0, etags[1])), ("InvalidArgument", 400)),
        (_complete((10_001, etags[1])), ("InvalidArgument", 400)),
        (_complete((-1, etags[1])), ("InvalidArgument", 400)),
        (_complete(("1e1", etags[1])), ("MalformedXML", 400)),
        (_complete(("9" * 5000, etags[1])), ("InvalidArgument", 400)),
        (_complete((1, "")), ("MalformedXML", 400)),
        (_complete(one, extra=digest), ("InvalidPart", 400)),
        (_complete(*((min(n, 10_000), etags[1]) for n in range(1, 10_002))), ("MalformedXML", 400)),
    ):
        content = victim.request("POST", "old", body=body, query={"uploadId": upload_id})
        assert victim.refused(content) == outcome, body[:200]
    for headers, outcome in (
        ({"x-amz-mp-object-size": "1"}, ("BadDigest", 400)),
        ({"x-amz-mp-object-size": "x"}, ("InvalidArgument", 400)),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, ("BadDigest", 400)),
        ({"if-none-match": "*"}, ("PreconditionFailed", 412)),
        ({"if-match": '"other"'}, ("PreconditionFailed", 412)),
    ):
        content = victim.request(
            "POST", "old", body=_complete(one), query={"uploadId": upload_id}, headers=headers
        )
        assert victim.refused(content) == outcome, headers
    assert len(victim.s3.list_parts(**name)["Parts"]) == 3, "a refusal cost the upload its parts"


@pytest.mark.parametrize("upload", ["x", "", "u" * 64, "u" * 3000, "ü", "../x", "a b"])
def test_uploads_that_do_not_exist(victim: hostile_client.Victim, upload: str) -> None:
    query = {"uploadId": upload}
    part = {**query, "partNumber": "1"}
    source = {"x-amz-copy-source": f"/{daemon_process.BUCKET}/old"}
    for content in (
        victim.request("PUT", "old", body=b"part", query=part),
        victim.request("PUT", "old", query=part, headers=source),
        victim.request("GET", "old", query=query),
        victim.request("POST", "old", body=_complete((1, "0" * 32)), query=query),
        victim.request("DELETE", "old", query=query),
    ):
        assert victim.refused(content) == ("NoSuchUpload", 404)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1.0", "9" * 400, "\uff11"])
def test_part_numbers(victim: hostile_client.Victim, upload_id: str, number: str) -> None:
    query = {"uploadId": upload_id, "partNumber": number}
    content = victim.request("PUT", "old", body=b"part", query=query)
    assert victim.refused(content) == ("InvalidArgument", 400)
    content = victim.request("GET", "old", query={"partNumber": number})
    assert victim.refused(content) == ("InvalidArgument", 400)


def test_parts_whose_checksum_is_not_the_uploads(victim: hostile_client.Victim) -> None:
    name = {"Bucket": daemon_process.BUCKET, "Key": "summed"}
    upload_id = str(
        victim.s3.create_multipart_upload(
            **name, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
        )["UploadId"]
    )
    query = {"uploadId": upload_id, "partNumber": "1"}
    content = victim.request(
        "PUT", "summed", body=b"x", query=query, headers={"x-amz-checksum-crc32": "jNwWvw=="}
    )
    assert victim.refused(content) == ("InvalidRequest", 400)
    # A client that gives none gets the upload's own, or the object would lose its checksum.
    told = victim.ask(victim.request("PUT", "summed", body=b"x", query=query))
    assert "x-amz-checksum-crc32c" in told.headers
    body = _complete((1, told.headers["etag"]))
    wrong = victim.request(
        "POST",
        "summed",
        body=body,
        query={"uploadId": upload_id},
        headers={"x-amz-checksum-type": "COMPOSITE"},
    )
    assert victim.refused(wrong) == ("InvalidRequest", 400)
    right = victim.request(
        "POST",
        "summed",
        body=body,
        query={"uploadId": upload_id},
        headers={"x-amz-checksum-crc32c": told.headers["x-amz-checksum-crc32c"]},
    )
    assert victim.ask(right).status == 200
    head = victim.s3.head_object(**name, ChecksumMode="ENABLED")
    assert head["ChecksumCRC32C"] == told.headers["x-amz-checksum-crc32c"]
    assert head["ChecksumType"] == "FULL_OBJECT"
    part = victim.s3.get_object(**name, PartNumber=1)
    part["Body"].close()
    assert part["ChecksumCRC32C"] == head["ChecksumCRC32C"]
    attributes = victim.s3.get_object_attributes(
        **name, ObjectAttributes=["ETag", "Checksum", "ObjectParts", "ObjectSize"]
    )
    assert attributes["ObjectSize"] == 1
    assert attributes["Checksum"]["ChecksumCRC32C"] == head["ChecksumCRC32C"]
    parts = attributes["ObjectParts"]["Parts"]
    assert [(p["PartNumber"], p["Size"], p["ChecksumCRC32C"]) for p in parts] == [
        (1, 1, head["ChecksumCRC32C"])
    ]
    victim.s3.delete_object(**name)


def test_copies_that_cannot_be_made(victim: hostile_client.Victim) -> None:
    bucket = daemon_process.BUCKET
    for headers, outcome in (
        ({"x-amz-copy-source": ""}, ("InvalidArgument", 400)),
        ({"x-amz-copy-source": "/"}, ("InvalidArgument", 400)),
        ({"x-amz-copy-source": f"/{bucket}"}, ("InvalidArgument", 400)),
        ({"x-amz-copy-source": f"/{bucket}/none"}, ("NoSuchKey", 404)),
        ({"x-amz-copy-source": "/nowhere/old"}, ("NoSuchBucket", 404)),
        ({"x-amz-copy-source": f"/{bucket}/%ff"}, ("InvalidURI", 400)),
        ({"x-amz-copy-source": f"/{bucket}/old?versionId=x"}, ("InvalidArgument", 400)),
        ({"x-amz-copy-source": f"/{bucket}/old"}, ("InvalidRequest", 400)),
        (
            {"x-amz-copy-source": f"/{bucket}/old", "x-amz-copy-source-if-match": "x"},
            ("PreconditionFailed", 412),
        ),
        (
            {"x-amz-copy-source": f"/{bucket}/old", "x-amz-metadata-directive": "MOVE"},
            ("InvalidArgument", 400),
        ),
        (
            {
                "x-amz-copy-source": f"/{bucket}/old",
                "x-amz-source-expected-bucket-owner": "somebody",
            },
            ("AccessDenied", 403),
        ),
        ({"x-amz-expected-bucket-owner": "somebody"}, ("AccessDenied", 403)),
    ):
        content = victim.request("PUT", "old", headers=headers)
        assert victim.refused(content) == outcome, headers
