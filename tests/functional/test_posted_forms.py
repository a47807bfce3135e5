"""Forms with a file, posted to the real daemon as browsers, boto3 and hostile clients post them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pathlib
import re
import typing
import zlib
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

import pytest
import urllib3
from tests.functional import daemon_process, hostile_client

_DOMAIN: typing.Final = "s3.example.test"
_BUCKET: typing.Final = daemon_process.BUCKET
_BOUNDARY: typing.Final = "----WebKitFormBoundaryX7"
_LARGE_BYTES: typing.Final = 64 << 20
_PAST: typing.Final = "2020-01-01T00:00:00Z"
_FUTURE: typing.Final = "2999-01-01T00:00:00Z"

Fields = Sequence[tuple[str, str]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    folder = tmp_path_factory.mktemp("forms")
    with hostile_client.attacked(folder, options={"domain": _DOMAIN}) as victim:
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    node.s3.delete_object(Bucket=_BUCKET, Key="k")
    node.assert_well()


def _signed(
    victim: hostile_client.Victim,
    fields: Fields,
    *conditions: object,
    policy: object = None,
    secret: str | None = None,
) -> list[tuple[str, str]]:
    """Fields with a policy that covers each of them, and its signature of version 2."""
    covering: list[object] = [{"bucket": _BUCKET}, *conditions]
    covering += [["starts-with", f"${name}", ""] for name, _ in fields]
    document = {"expiration": _FUTURE, "conditions": covering} if policy is None else policy
    text = document if isinstance(document, str) else json.dumps(document)
    encoded = base64.b64encode(text.encode())
    credentials = victim.server.credentials
    key = credentials.secret_key if secret is None else secret
    signature = base64.b64encode(hmac.digest(key.encode(), encoded, "sha1"))
    return [
        *fields,
        ("AWSAccessKeyId", credentials.access_key),
        ("signature", signature.decode()),
        ("policy", encoded.decode()),
    ]


def _encoded(
    fields: Fields, file: bytes = b"bar", *, filename: str = "f", end: bytes = b""
) -> bytes:
    """A form as browsers write it, without what stands around the boundary's text at its end."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    ]
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    closing = b"\r\n--" + _BOUNDARY.encode()
    return "".join((*parts, head)).encode() + file + closing + (end or b"--\r\n")


def _request(body: bytes, *, host: str = "127.0.0.1", path: str = f"/{_BUCKET}") -> bytes:
    headers = {
        "Host": host,
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(body)),
    }
    return hostile_client.head("POST", path, headers) + body


def _post(
    victim: hostile_client.Victim, fields: Fields, file: bytes = b"bar", **options: typing.Any
) -> hostile_client.Answer:
    return victim.ask(_request(_encoded(fields, file, **options)))


def _refused(
    victim: hostile_client.Victim, fields: Fields, file: bytes = b"bar"
) -> tuple[tuple[str, int], bytes]:
    """The outcome and the document of a refusal, after which nothing is stored."""
    answer = _post(victim, fields, file)
    assert victim.stored("k") is None
    return answer.outcome, answer.body


@pytest.mark.parametrize("version", ["s3v4", "s3"])
@pytest.mark.parametrize("names_everything", [False, True], ids=["browser", "requests"])
def test_what_boto3_presigns_is_stored(
    victim: hostile_client.Victim, version: str, names_everything: bool
) -> None:
    client = daemon_process.boto_client(victim.server, signature_version=version)
    made = client.generate_presigned_post(
        _BUCKET,
        "k",
        Fields={"acl": "private", "Content-Type": "text/plain", "x-amz-meta-a": "ü"},
        Conditions=[
            {"acl": "private"},
            ["starts-with", "$Content-Type", "text/"],
            ["starts-with", "$x-amz-meta-a", ""],
            ["content-length-range", 1, 1024],
        ],
    )
    assert ("x-amz-signature" in made["fields"]) is (version == "s3v4")
    fields: list[tuple[str, typing.Any]] = [
        # As the requests library does it when all fields are given as files.
        (name, (name, value) if names_everything else value)
        for name, value in made["fields"].items()
    ]
    body, kind = urllib3.encode_multipart_formdata([*fields, ("file", ("cat.txt", b"meow"))])
    answer = urllib3.request(
        "POST", made["url"], body=body, headers={"Content-Type": kind}, redirect=False
    )
    assert (answer.status, answer.data) == (204, b""), answer.data
    stored = victim.s3.get_object(Bucket=_BUCKET, Key="k")
    assert stored["Body"].read() == b"meow"
    assert stored["ContentType"] == "text/plain"
    assert stored["ETag"] == answer.headers["ETag"]
    assert answer.headers["Location"] == f"{victim.server.endpoint}/{_BUCKET}/k"
    assert list(stored["Metadata"]) == ["a"]


def test_names_have_no_case_and_the_file_names_the_key(victim: hostile_client.Victim) -> None:
    policy = {
        "expiration": _FUTURE,
        "conditions": [{"bUcKeT": _BUCKET}, ["StArTs-WiTh", "$KeY", "k"], {"AcL": "private"}],
    }
    fields = _signed(victim, [("kEy", "${filename}"), ("aCl", "private")], policy=policy)
    assert _post(victim, fields, filename=r"C:\somewhere\k").status == 204
    assert victim.stored("k") == b"bar"
    other = _post(victim, fields, filename="other")
    assert other.outcome == ("AccessDenied", 403)
    assert victim.stored("other") is None


def test_what_fields_ask_for_is_kept_as_a_put_keeps_it(victim: hostile_client.Victim) -> None:
    document = (
        "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag>"
        "<Tag><Key>b</Key><Value></Value></Tag></TagSet></Tagging>"
    )
    kept = {
        "Cache-Control": "max-age=60",
        "Content-Disposition": 'attachment; filename="x"',
        "Content-Encoding": "gzip",
        "Content-Type": "image/png",
        "Expires": "Wed, 21 Oct 2026 07:28:00 GMT",
    }
    fields = [
        ("key", "k"),
        *kept.items(),
        ("x-amz-meta-one", "1"),
        ("x-amz-storage-class", "STANDARD"),
        ("tagging", document),
        ("x-ignore-me", "\r\nanything"),
    ]
    assert _post(victim, _signed(victim, fields)).status == 204
    stored = victim.s3.get_object(Bucket=_BUCKET, Key="k")
    stored["Body"].close()
    told = stored["ResponseMetadata"]["HTTPHeaders"]
    assert {name: told[name.lower()] for name in kept} == kept
    assert stored["Metadata"] == {"one": "1"}
    tags = victim.s3.get_object_tagging(Bucket=_BUCKET, Key="k")["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]


def test_answers_of_success(victim: hostile_client.Victim) -> None:
    def posted(*extra: tuple[str, str]) -> hostile_client.Answer:
        return _post(victim, _signed(victim, [("key", "k/ü +"), *extra]))

    location = f"http://127.0.0.1/{_BUCKET}/k/%C3%BC%20%2B"
    try:
        created = posted(("success_action_status", "201"))
        assert created.status == 201
        assert created.headers["content-type"] == "application/xml"
        assert {child.tag: child.text for child in ElementTree.fromstring(created.body)} == {
            "Location": location,
            "Bucket": _BUCKET,
            "Key": "k/ü +",
            "ETag": '"37b51d194a7513e45b56f6524f2d51f2"',
        }
        assert created.headers["etag"] == '"37b51d194a7513e45b56f6524f2d51f2"'
        for text, status in (("200", 200), ("204", 204), ("404", 204)):
            answer = posted(("success_action_status", text))
            assert (answer.status, answer.body) == (status, b"")
            assert answer.headers["location"] == location
        for name in ("success_action_redirect", "redirect"):
            answer = posted((name, "http://a.test/done?x=1"), ("success_action_status", "201"))
            assert (answer.status, answer.body) == (303, b"")
            assert answer.headers["location"] == (
                f"http://a.test/done?x=1&bucket={_BUCKET}&key=k%2F%C3%BC%20%2B"
                "&etag=%2237b51d194a7513e45b56f6524f2d51f2%22"
            )
        answer = posted(("success_action_redirect", "no url"))
        assert (answer.status, answer.headers["location"]) == (204, location)
    finally:
        victim.s3.delete_object(Bucket=_BUCKET, Key="k/ü +")


def test_checksums(victim: hostile_client.Victim) -> None:
    crc = base64.b64encode(zlib.crc32(b"bar").to_bytes(4, "big")).decode()
    fields = _signed(victim, [("key", "k")])
    wrong = [*fields, ("x-amz-checksum-crc32", "AAAAAA==")]
    assert _refused(victim, wrong)[0] == ("BadDigest", 400)
    malformed = [*fields, ("x-amz-checksum-sha256", "sailorjerry")]
    assert _refused(victim, malformed)[0] == ("BadDigest", 400)
    md5 = base64.b64encode(hashlib.md5(b"bar").digest()).decode()
    for digest, outcome in ((md5, ("", 204)), (md5[::-1], ("InvalidDigest", 400))):
        answer = _post(victim, _signed(victim, [("key", "k"), ("Content-MD5", digest)]))
        assert answer.outcome == outcome
    answer = _post(victim, [*fields, ("x-amz-checksum-crc32", crc)])
    assert (answer.status, answer.headers["x-amz-checksum-crc32"]) == (204, crc)
    told = victim.s3.head_object(Bucket=_BUCKET, Key="k", ChecksumMode="ENABLED")
    assert told["ChecksumCRC32"] == crc


@pytest.mark.parametrize(
    ("fields", "outcome", "said"),
    [
        ([], ("InvalidArgument", 400), b"a field named 'key'"),
        ([("key", "")], ("InvalidArgument", 400), b"length greater than 0"),
        ([("key", "k" * 1025)], ("KeyTooLongError", 400), b"1024"),
        ([("key", "k"), ("KEY", "k2")], ("InvalidArgument", 400), b"more than one field"),
        ([("key", "k"), ("acl", "open")], ("InvalidArgument", 400), b"x-amz-acl"),
        ([("key", "k"), ("x-amz-storage-class", "GLACIER")], ("InvalidStorageClass", 400), b""),
        ([("key", "k"), ("x-amz-meta-a", "1\r\n2")], ("InvalidArgument", 400), b"no header"),
        ([("key", "k"), ("x-amz-meta-a", "1" * 2100)], ("MetadataTooLarge", 400), b""),
        ([("key", "k"), ("tagging", "<Tagging/>")], ("MalformedXML", 400), b""),
        ([("key", "k"), ("x-amz-security-token", "t")], ("InvalidToken", 400), b""),
        (
            [("key", "k"), ("x-amz-server-side-encryption", "AES256")],
            ("NotImplemented", 501),
            b"x-amz-server-side-encryption",
        ),
        ([("key", "k"), ("x", "1" * 20_480)], ("MaxPostPreDataLengthExceeded", 400), b"20480"),
    ],
)
def test_forms_that_are_signed_and_refused(
    victim: hostile_client.Victim, fields: Fields, outcome: tuple[str, int], said: bytes
) -> None:
    refused, document = _refused(victim, _signed(victim, fields))
    assert refused == outcome
    assert said in document


_COVERING: typing.Final[list[object]] = [{"bucket": _BUCKET}, ["starts-with", "$key", ""]]


@pytest.mark.parametrize(
    ("policy", "status", "said"),
    [
        ({"expiration": _PAST, "conditions": _COVERING}, 403, b"Policy expired"),
        ({"expiration": _FUTURE, "conditions": _COVERING[1:]}, 403, b"input fields: bucket"),
        ({"expiration": _FUTURE, "conditions": _COVERING[:1]}, 403, b"input fields: key"),
        (
            {"expiration": _FUTURE, "conditions": [{"bucket": "other"}, _COVERING[1]]},
            403,
            b"Condition failed",
        ),
        ({"expiration": _FUTURE, "conditions": [{}]}, 400, b"exactly one field"),
        ({"expiration": _FUTURE}, 400, b"conditions"),
        ({"conditions": _COVERING}, 400, b"expiration"),
        ({"EXPIRATION": _FUTURE, "conditions": _COVERING}, 400, b"EXPIRATION"),
        ({"expiration": "2026-11-29 12:00:00+00:00", "conditions": _COVERING}, 400, b"zone"),
        ("{", 400, b"Invalid JSON"),
    ],
)
def test_policies_that_refuse(
    victim: hostile_client.Victim, policy: object, status: int, said: bytes
) -> None:
    outcome, document = _refused(victim, _signed(victim, [("key", "k")], policy=policy))
    assert outcome == ("AccessDenied" if status == 403 else "InvalidPolicyDocument", status)
    assert said in document


def test_signatures_that_are_refused(victim: hostile_client.Victim) -> None:
    signed = dict(_signed(victim, [("key", "k")]))

    def refused(**changed: str | None) -> tuple[str, int]:
        fields = {**signed, **changed}
        return _refused(victim, [(n, v) for n, v in fields.items() if v is not None])[0]

    assert refused(signature="x") == ("SignatureDoesNotMatch", 403)
    assert refused(signature=None) == ("InvalidArgument", 400)
    assert refused(policy=None) == ("InvalidArgument", 400)
    assert refused(policy="%") == ("SignatureDoesNotMatch", 403)
    assert refused(AWSAccessKeyId="nobody") == ("InvalidAccessKeyId", 403)
    assert refused(AWSAccessKeyId=None) == ("InvalidArgument", 400)
    nobody = refused(AWSAccessKeyId=None, signature=None, policy=None)
    assert nobody == ("AccessDenied", 403)
    other = _signed(victim, [("key", "k")], secret="another secret")
    assert _refused(victim, other)[0] == ("SignatureDoesNotMatch", 403)
    key = victim.server.credentials.secret_key.encode()
    signature = base64.b64encode(hmac.digest(key, b"%", "sha1")).decode()
    assert refused(policy="%", signature=signature) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize("size_bytes", [0, 1, 100, 70_000, 3_000_000])
def test_the_bounds_of_the_size_are_exact(victim: hostile_client.Victim, size_bytes: int) -> None:
    file = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)

    def post(low: int, high: int) -> hostile_client.Answer:
        fields = _signed(victim, [("key", "k")], ["content-length-range", low, high])
        return _post(victim, fields, file)

    small = post(size_bytes + 1, size_bytes + 10)
    assert small.outcome == ("EntityTooSmall", 400)
    assert f"<ProposedSize>{size_bytes}</ProposedSize>".encode() in small.body
    if size_bytes:
        assert post(0, size_bytes - 1).outcome == ("EntityTooLarge", 400)
    assert victim.stored("k") is None
    assert post(size_bytes, size_bytes).status == 204
    assert victim.stored("k") == file


_LAST: typing.Final = f"--{_BOUNDARY}--\r\n"


def _after_file(name: str, value: str, last: str = _LAST) -> bytes:
    """A part that follows the file, and the end."""
    return (f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n{last}').encode()


@pytest.mark.parametrize(
    "end",
    [
        b"--",
        b"--\r\n",
        b"--\r\nan epilogue\r\n--" + b"x" * 1000,
        _after_file("submit", "Go"),
        _after_file("late", "x" * 60_000),
    ],
    ids=["bare", "usual", "epilogue", "submit", "long field"],
)
@pytest.mark.parametrize("size_bytes", [0, 3, 131_070, 131_072, 4_194_304, 9_000_001])
def test_what_follows_the_file_is_not_of_it(
    victim: hostile_client.Victim, size_bytes: int, end: bytes
) -> None:
    file = hashlib.shake_128(b"seed").digest(size_bytes)
    answer = _post(victim, _signed(victim, [("key", "k")]), file, end=end)
    assert answer.status == 204
    assert victim.stored("k") == file
    told = victim.s3.head_object(Bucket=_BUCKET, Key="k")
    assert told["ETag"] == f'"{hashlib.md5(file).hexdigest()}"'


def test_a_version_is_made_where_there_are_versions(victim: hostile_client.Victim) -> None:
    bucket = "versioned"
    victim.s3.create_bucket(Bucket=bucket)
    victim.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = victim.s3.generate_presigned_post(bucket, "k")
    ids = []
    for content in (b"one", b"two"):
        body = _encoded(list(made["fields"].items()), content)
        answer = victim.ask(_request(body, path=f"/{bucket}/"))
        assert answer.status == 204
        assert answer.headers["location"] == f"http://127.0.0.1/{bucket}/k"
        ids.append(answer.headers["x-amz-version-id"])
    old = victim.s3.get_object(Bucket=bucket, Key="k", VersionId=ids[0])
    assert old["Body"].read() == b"one"


def test_a_bucket_in_the_host_name(victim: hostile_client.Victim) -> None:
    body = _encoded(_signed(victim, [("key", "k"), ("success_action_status", "201")]))
    answer = victim.ask(_request(body, host=f"{_BUCKET}.{_DOMAIN}:9", path="/"))
    assert answer.status == 201
    assert answer.headers["location"] == f"http://{_BUCKET}.{_DOMAIN}:9/k"
    assert victim.stored("k") == b"bar"


def test_what_is_no_form_or_goes_elsewhere_is_refused(victim: hostile_client.Victim) -> None:
    fields = _signed(victim, [("key", "k")])
    form = _encoded(fields)
    request = _request(form)
    plain = request.replace(b"multipart/form-data", b"application/x-www-form-urlencoded")
    assert victim.ask(plain).outcome == ("PreconditionFailed", 412)
    assert b"enclosure-type multipart/form-data" in victim.ask(plain).body
    unbound = request.replace(b"; boundary=", b"; x=", 1)
    assert victim.ask(unbound).outcome == ("MalformedPOSTRequest", 400)
    endless = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", _request(b""))
    endless += b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    assert victim.ask(endless).outcome == ("MissingContentLength", 411)
    huge = re.sub(rb"Content-Length: \d+", b"Content-Length: 9999999999999", request)
    assert victim.ask(huge).outcome == ("EntityTooLarge", 400)
    gone = victim.ask(_request(form, path="/no-such-bucket"))
    assert gone.outcome == ("NoSuchBucket", 404)
    for path in (f"/{_BUCKET}/k", "/", f"/{_BUCKET}?delete"):
        assert victim.ask(_request(form, path=path)).outcome == ("AccessDenied", 403)
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    signed_twice = victim.request("POST", body=form, headers={"content-type": kind})
    assert victim.ask(signed_twice).outcome == ("InvalidArgument", 400)
    assert victim.ask(victim.request("POST", body=form)).outcome == ("PreconditionFailed", 412)
    assert victim.stored("k") is None


def test_forms_that_break_off_store_nothing(victim: hostile_client.Victim) -> None:
    fields = _signed(victim, [("key", "k")])
    file = b"x" * 2_000_000
    whole = _request(_encoded(fields, file))
    for sent in (len(whole) // 2, len(whole) - 4, 400):
        with victim.connection() as connection:
            connection.send(whole[:sent])
    with victim.connection() as connection:
        connection.send(whole[: len(whole) // 2])
        assert connection.answer().outcome == ("RequestTimeout", 400)
    for end in (b"-", b"--x", b"\r\nlost"):
        answer = _post(victim, fields, file, end=end)
        assert answer.outcome == ("MalformedPOSTRequest", 400)
    twice = _after_file("file", "b")
    for content in (b"one", file):
        answer = _post(victim, fields, content, end=twice)
        assert answer.outcome == ("IncorrectNumberOfFilesInPostRequest", 400)
    answer = _post(victim, fields, end=_after_file("x", "x" * 70_000))
    assert answer.outcome == ("InvalidRequest", 400)
    assert victim.stored("k") is None


def test_a_refused_form_leaves_a_connection_that_serves(victim: hostile_client.Victim) -> None:
    small = _request(_encoded(_signed(victim, [("key", "k")], secret="wrong")))
    assert victim.refused(small) == ("SignatureDoesNotMatch", 403)
    large = _request(_encoded(_signed(victim, [("key", "k")], secret="wrong"), b"x" * 300_000))
    assert victim.refused(large, survives=False) == ("SignatureDoesNotMatch", 403)
    with victim.connection() as connection:
        for _ in range(2):
            connection.send(_request(_encoded(_signed(victim, [("key", "k")]))))
            assert connection.answer().status == 204


def test_a_form_waits_for_an_invitation(victim: hostile_client.Victim) -> None:
    body = _encoded(_signed(victim, [("key", "k")]))
    whole = _request(body).replace(b"Host:", b"Expect: 100-continue\r\nHost:", 1)
    head, _, _ = whole.partition(b"\r\n\r\n")
    with victim.connection() as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.answer().status == 100
        connection.send(body)
        assert connection.answer().status == 204
    lost = head.replace(_BUCKET.encode(), b"no-such-bucket", 1)
    assert victim.refused(lost + b"\r\n\r\n", survives=False) == ("NoSuchBucket", 404)


def _peak_bytes(pids: Iterable[int]) -> dict[int, int]:
    """The most memory each process has ever had resident."""
    found = {}
    for pid in pids:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        found[pid] = int(text.partition("VmHWM:")[2].split()[0]) * 1024
    return found


def test_a_large_file_passes_through_little_memory(victim: hostile_client.Victim) -> None:
    assert _post(victim, _signed(victim, [("key", "k")]), b"x" * 9_000_000).status == 204
    before = _peak_bytes(victim.pids)
    fields = _signed(victim, [("key", "k")], ["content-length-range", 1, _LARGE_BYTES])
    head, _, tail = _encoded(fields, b"<file>").partition(b"<file>")
    block = hashlib.shake_128(b"block").digest(1 << 20)
    length = len(head) + _LARGE_BYTES + len(tail)
    start = _request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % length)
    with victim.connection() as connection:
        connection.send(start + head)
        for _ in range(_LARGE_BYTES // len(block)):
            connection.send(block)
        connection.send(tail)
        assert connection.answer().status == 204
    after = _peak_bytes(victim.pids)
    growth = {pid: after[pid] - before[pid] for pid in victim.pids}
    assert max(growth.values()) < _LARGE_BYTES // 2, growth
    told = victim.s3.head_object(Bucket=_BUCKET, Key="k")
    assert told["ContentLength"] == _LARGE_BYTES
    expected = hashlib.md5()
    for _ in range(_LARGE_BYTES // len(block)):
        expected.update(block)
    assert told["ETag"] == f'"{expected.hexdigest()}"'
