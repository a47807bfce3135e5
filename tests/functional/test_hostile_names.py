"""Keys, bucket names, ranges and page sizes meant to break the node or to reach beyond a bucket."""

from __future__ import annotations

import typing
import urllib.parse
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from tests.functional import daemon_process, hostile_client

from couchestor_bench import signing

OLD: typing.Final = b"0123456789"
DOMAIN: typing.Final = "s3.couchestor.test"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hostile_client.Victim]:
    folder = tmp_path_factory.mktemp("names")
    with hostile_client.attacked(folder, options={"domain": DOMAIN}) as victim:
        victim.put("old", OLD)
        victim.put("empty", b"")
        yield victim


@pytest.fixture
def victim(node: hostile_client.Victim) -> Iterator[hostile_client.Victim]:
    yield node
    assert node.stored("old") == OLD
    node.assert_well()


def _raw(
    victim: hostile_client.Victim,
    method: str,
    target: str,
    *,
    path: str,
    body: bytes = b"",
    host: str = "",
    headers: dict[str, str] | None = None,
) -> hostile_client.Answer:
    """Ask with a target written by hand, signed for the path it stands for."""
    signed = signing.sign_headers(
        victim.server.credentials,
        method,
        host=host or victim.server.host,
        path=path,
        headers=headers,
    )
    signed["content-length"] = str(len(body))
    return victim.ask(hostile_client.head(method, target, signed) + body, method)


KEYS: typing.Final = (
    "..",
    "../old",
    "a/../old",
    "./old",
    "a//b",
    "//",
    "/leading",
    "trailing/",
    "%2F",
    "a%2Fb",
    "%",
    "a+b",
    "a b",
    "a%20b",
    "a?b#c&d=e",
    "caf\u00e9",
    "cafe\u0301",
    "\u202eevil",
    "\U0001f600",
    "\x01\x1f\x7f",
    "line\nbreak\r",
    "<&>\"'",
    "null",
    "k" * 1024,
    "é" * 512,
    "a" * 480 + "/" + "b" * 500,
)


def test_every_key_is_its_own_and_nobody_elses(victim: hostile_client.Victim) -> None:
    bucket = "keys"
    victim.s3.create_bucket(Bucket=bucket)
    for key in KEYS:
        path = f"/{bucket}/{key}"
        told = _raw(victim, "PUT", signing.encode_path(path), path=path, body=key.encode())
        assert told.status == 200, (key, told)
    for key in KEYS:
        path = f"/{bucket}/{key}"
        for target in (signing.encode_path(path), "/" + bucket + "/" + _every_byte(key)):
            assert _raw(victim, "GET", target, path=path).body == key.encode(), key
        assert victim.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = victim.s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == sorted(KEYS, key=str.encode)
    # XML 1.0 has no way to write these, so they go one by one.
    plain = [key for key in KEYS if "\x01" not in key]
    doomed = {"Objects": [{"Key": key} for key in plain]}
    gone = victim.s3.delete_objects(Bucket=bucket, Delete=doomed)
    assert sorted(entry["Key"] for entry in gone["Deleted"]) == sorted(plain)
    victim.s3.delete_object(Bucket=bucket, Key="\x01\x1f\x7f")
    assert victim.s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    victim.s3.delete_bucket(Bucket=bucket)


def _every_byte(key: str) -> str:
    return "".join(f"%{byte:02x}" for byte in key.encode())


@pytest.mark.parametrize("key", ["k" * 1025, "é" * 513, "/" * 1025])
def test_a_key_over_1024_bytes(victim: hostile_client.Victim, key: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        assert victim.refused(victim.request(method, key)) == ("KeyTooLongError", 400)
    source = {"x-amz-copy-source": f"/{daemon_process.BUCKET}/{urllib.parse.quote(key)}"}
    assert victim.refused(victim.request("PUT", "new", headers=source)) == ("NoSuchKey", 404)
    for query in ({"uploads": ""}, {"uploadId": "x"}):
        content = victim.request("POST", key, query=query)
        assert victim.refused(content) == ("KeyTooLongError", 400)
    answer = victim.s3.delete_objects(
        Bucket=daemon_process.BUCKET, Delete={"Objects": [{"Key": key}, {"Key": "none"}]}
    )
    assert [error["Code"] for error in answer["Errors"]] == ["KeyTooLongError"]
    assert [gone["Key"] for gone in answer["Deleted"]] == ["none"]


@pytest.mark.parametrize("tail", ["%ff", "%c3", "%ed%a0%80", "a%00b"])
def test_a_key_that_is_no_text(victim: hostile_client.Victim, tail: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = _raw(victim, method, f"/{daemon_process.BUCKET}/{tail}", path="/unused")
        assert answer.outcome == ("InvalidURI", 400)


@pytest.mark.parametrize("tail", ["%", "%4", "%zz", "a%"])
def test_a_percent_that_encodes_nothing_stays_one(victim: hostile_client.Victim, tail: str) -> None:
    path = f"/{daemon_process.BUCKET}/{tail}"
    assert _raw(victim, "PUT", path, path=path, body=b"x").status == 200
    assert victim.stored(tail) == b"x"
    victim.s3.delete_object(Bucket=daemon_process.BUCKET, Key=tail)


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "a" * 600,
        "UPPER",
        "under_score",
        "a..b",
        "-edge",
        "edge-",
        "a.-b",
        "192.168.0.1",
        "xn--puny",
        "x-s3alias",
        "sp ace",
        "é-bucket",
        "..",
        "a\nb",
    ],
)
def test_bucket_names(victim: hostile_client.Victim, name: str) -> None:
    path = f"/{name}"
    target = signing.encode_path(path)
    assert _raw(victim, "PUT", target, path=path).outcome == ("InvalidBucketName", 400)
    for method in ("GET", "HEAD", "DELETE"):
        answer = _raw(victim, method, target, path=path)
        assert answer.status == 404, answer
    assert _raw(victim, "GET", f"{target}/key", path=f"{path}/key").outcome == ("NoSuchBucket", 404)
    source = {"x-amz-copy-source": urllib.parse.quote(f"/{name}/key")}
    copied = victim.ask(victim.request("PUT", "new", headers=source))
    assert copied.outcome == ("NoSuchBucket", 404)
    assert victim.stored("new") is None


def test_no_bucket_at_all(victim: hostile_client.Victim) -> None:
    for path in ("//proof/old", "///old"):
        for method in ("GET", "PUT", "DELETE"):
            answer = _raw(victim, method, path, path=path)
            assert answer.outcome == ("InvalidBucketName", 400)
    for method in ("PUT", "DELETE", "POST"):
        assert _raw(victim, method, "/", path="/").outcome == ("MethodNotAllowed", 405)


@pytest.mark.parametrize(
    "host", [f"{daemon_process.BUCKET}.{DOMAIN}", f"{daemon_process.BUCKET.upper()}.{DOMAIN}:9000"]
)
def test_a_bucket_named_by_the_host(victim: hostile_client.Victim, host: str) -> None:
    assert _raw(victim, "GET", "/old", path="/old", host=host).body == OLD
    assert _raw(victim, "GET", "/", path="/", host=host).status == 200
    # Neither the path nor another host of the domain reaches out of the bucket.
    inside = _raw(victim, "GET", "/proof/old", path="/proof/old", host=host)
    assert inside.outcome == ("NoSuchKey", 404)


@pytest.mark.parametrize("host", [f"..{DOMAIN}", f"nobody.{DOMAIN}", f"{'a' * 600}.{DOMAIN}"])
def test_a_host_that_names_no_bucket(victim: hostile_client.Victim, host: str) -> None:
    assert _raw(victim, "GET", "/old", path="/old", host=host).outcome == ("NoSuchBucket", 404)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bytes=10-", None),
        ("bytes=99-100", None),
        ("bytes=-0", None),
        ("bytes=" + "9" * 40 + "-", None),
        ("bytes=5-4", OLD),
        ("bytes=a-b", OLD),
        ("bytes=--1", OLD),
        ("bytes=0-1,3-4", OLD),
        ("items=0-1", OLD),
        ("bytes=", OLD),
        ("bytes=0-" + "9" * 40, OLD),
        ("bytes=-" + "9" * 40, OLD),
        ("bytes=9-9", b"9"),
        ("bytes=-3", b"789"),
    ],
)
def test_ranges(victim: hostile_client.Victim, text: str, wanted: bytes | None) -> None:
    answer = victim.ask(victim.request("GET", "old", headers={"range": text}))
    if wanted is None:
        assert answer.outcome == ("InvalidRange", 416)
        assert answer.headers["content-range"] == f"bytes */{len(OLD)}"
        head = victim.ask(victim.request("HEAD", "old", headers={"range": text}), "HEAD")
        assert (head.status, head.headers["content-range"]) == (416, f"bytes */{len(OLD)}")
    else:
        assert answer.body == wanted
    empty = victim.ask(victim.request("GET", "empty", headers={"range": "bytes=0-0"}))
    assert empty.headers["content-range"] == "bytes */0"


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "2147483648", "9" * 40, "\uff11", "0x10", " "])
def test_page_sizes_that_are_none(victim: hostile_client.Victim, value: str) -> None:
    for query in (
        {"max-keys": value},
        {"list-type": "2", "max-keys": value},
        {"versions": "", "max-keys": value},
        {"uploads": "", "max-uploads": value},
    ):
        assert victim.refused(victim.request("GET", query=query)) == ("InvalidArgument", 400)


def test_listings_asked_in_odd_ways(victim: hostile_client.Victim) -> None:
    for query, code in (
        ({"encoding-type": "base64"}, "InvalidArgument"),
        ({"list-type": "2", "continuation-token": "####"}, "InvalidArgument"),
        ({"list-type": "2", "continuation-token": "_w=="}, "InvalidArgument"),
        ({"versions": "", "version-id-marker": "null"}, "InvalidArgument"),
        ({"list-type": "3"}, "InvalidArgument"),
        ({"uploads": "", "key-marker": "k", "upload-id-marker": "u" * 3000}, ""),
        ({"prefix": "p" * 5000, "delimiter": "d" * 3000, "marker": "m" * 5000}, ""),
        ({"list-type": "2", "start-after": "s" * 5000, "max-keys": "2147483647"}, ""),
        ({"delimiter": "\x01", "prefix": "\x02", "encoding-type": "url"}, ""),
        # No XML holds these, and no client reads what is none.
        ({"prefix": "\x02"}, "InvalidArgument"),
        ({"list-type": "2", "prefix": "\uffff"}, "InvalidArgument"),
        ({"versions": "", "key-marker": "\ufffe"}, "InvalidArgument"),
        ({"uploads": "", "key-marker": "\x1f"}, "InvalidArgument"),
    ):
        answer = victim.ask(victim.request("GET", query=query))
        assert answer.outcome == ((code, 400) if code else ("", 200)), query
    path = f"/{daemon_process.BUCKET}"
    for text in ("prefix=%ff", "marker=%00", "%ff=1"):
        answer = _raw(victim, "GET", f"{path}?{text}", path=path)
        assert answer.outcome == ("InvalidURI", 400)


def test_versions_that_do_not_exist(victim: hostile_client.Victim) -> None:
    for version in ("", "x", "v" * 4000):
        for method in ("GET", "DELETE"):
            content = victim.request(method, "old", query={"versionId": version})
            assert victim.refused(content) == ("InvalidArgument", 400)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        victim.s3.delete_object(Bucket=daemon_process.BUCKET, Key="old", IfMatch="other")
