"""Requests of other sites through the real daemon: boto3 configures, plain HTTP is the browser."""

from __future__ import annotations

import http.client
import pathlib
import typing
import urllib.parse
from collections.abc import Iterator

import botocore.exceptions
import pytest
from tests.functional import daemon_process

_BUCKET: typing.Final = "shared"
_RULES: typing.Final = [
    {
        "ID": "pages",
        "AllowedOrigins": ["https://*.example.com"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    }
]
_SITE: typing.Final = "https://www.example.com"

Client = typing.Any


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: pathlib.Path = tmp_path_factory.mktemp("cors") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as server:
        made = daemon_process.boto_client(server, signature_version="s3v4")
        made.create_bucket(Bucket=_BUCKET)
        made.put_object(Bucket=_BUCKET, Key="k", Body=b"body")
        yield made


@pytest.fixture
def configured(client: Client) -> Iterator[Client]:
    client.put_bucket_cors(Bucket=_BUCKET, CORSConfiguration={"CORSRules": _RULES})
    yield client
    client.delete_bucket_cors(Bucket=_BUCKET)


def _ask(
    client: Client, method: str, target: str, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    host = urllib.parse.urlsplit(client.meta.endpoint_url).netloc
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def _presigned(client: Client, method: str = "get_object", key: str = "k") -> str:
    url = client.generate_presigned_url(method, Params={"Bucket": _BUCKET, "Key": key})
    parts = urllib.parse.urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_rules_are_put_read_and_removed(client: Client) -> None:
    def missing() -> None:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            client.get_bucket_cors(Bucket=_BUCKET)
        error = caught.value.response["Error"]
        assert (error["Code"], error["BucketName"]) == ("NoSuchCORSConfiguration", _BUCKET)

    missing()
    client.put_bucket_cors(Bucket=_BUCKET, CORSConfiguration={"CORSRules": _RULES})
    assert client.get_bucket_cors(Bucket=_BUCKET)["CORSRules"] == _RULES
    # Beside them the record keeps what else it has.
    client.put_bucket_tagging(Bucket=_BUCKET, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    client.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert client.get_bucket_cors(Bucket=_BUCKET)["CORSRules"] == _RULES
    client.delete_bucket_cors(Bucket=_BUCKET)
    missing()
    assert client.get_bucket_versioning(Bucket=_BUCKET)["Status"] == "Suspended"


def test_a_preflight_is_answered_by_the_rules(configured: Client) -> None:
    asked = {
        "Origin": _SITE,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type, x-amz-date",
    }
    for target in (f"/{_BUCKET}/k", f"/{_BUCKET}/none", f"/{_BUCKET}"):
        status, headers, body = _ask(configured, "OPTIONS", target, asked)
        assert (status, body) == (200, b"")
        assert headers["Access-Control-Allow-Origin"] == _SITE
        assert headers["Access-Control-Allow-Methods"] == "GET, PUT"
        assert headers["Access-Control-Allow-Headers"] == "content-type, x-amz-date"
        assert headers["Access-Control-Expose-Headers"] == "ETag"
        assert headers["Access-Control-Max-Age"] == "60"
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in headers["Vary"]


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"Origin": None}, 400, "Origin request header needed"),
        ({"Access-Control-Request-Method": None}, 400, "Method: null"),
        ({"Access-Control-Request-Method": "PATCH"}, 400, "Method: PATCH"),
        ({"Access-Control-Request-Method": "DELETE"}, 403, "This CORS request is not allowed"),
        ({"Origin": "https://example.com"}, 403, "This CORS request is not allowed"),
        ({"Access-Control-Request-Headers": "range"}, 403, "This CORS request is not allowed"),
    ],
)
def test_a_preflight_that_no_rule_lets_in(
    configured: Client, change: dict[str, str | None], status: int, sentence: str
) -> None:
    asked = {"Origin": _SITE, "Access-Control-Request-Method": "GET", **change}
    given = {name: value for name, value in asked.items() if value is not None}
    found, headers, body = _ask(configured, "OPTIONS", f"/{_BUCKET}/k", given)
    assert (found, sentence.encode() in body) == (status, True), body
    assert not [name for name in headers if name.lower().startswith("access-control-")]
    if status == 403:
        assert b"<ResourceType>OBJECT</ResourceType>" in body


def test_a_preflight_of_a_bucket_without_rules_and_of_none(client: Client) -> None:
    asked = {"Origin": _SITE, "Access-Control-Request-Method": "GET"}
    status, _, body = _ask(client, "OPTIONS", f"/{_BUCKET}", asked)
    assert (status, b"CORS is not enabled for this bucket" in body) == (403, True)
    assert b"<Method>GET</Method><ResourceType>BUCKET</ResourceType>" in body
    status, _, body = _ask(client, "OPTIONS", "/none/k", asked)
    assert (status, b"NoSuchBucket" in body) == (404, True)


def test_answers_say_who_may_see_them_also_errors_and_304(configured: Client) -> None:
    etag = configured.head_object(Bucket=_BUCKET, Key="k")["ETag"]
    site = {"Origin": _SITE}
    for target, more, expected in (
        (_presigned(configured), {}, 200),
        (_presigned(configured), {"If-None-Match": etag}, 304),
        (_presigned(configured, key="none"), {}, 404),
        (f"/{_BUCKET}/k", {}, 403),
        (f"/{_BUCKET}/k?X-Amz-Signature=0&X-Amz-Algorithm=x", {}, 400),
    ):
        status, headers, _ = _ask(configured, "GET", target, {**site, **more})
        assert (status, headers["Access-Control-Allow-Origin"]) == (expected, _SITE)
        assert headers["Access-Control-Expose-Headers"] == "ETag"
        assert "Origin" in headers["Vary"]


def test_other_sites_and_requests_of_none_are_told_nothing(configured: Client) -> None:
    target = _presigned(configured)
    for given in ({}, {"Origin": "https://elsewhere.org"}):
        status, headers, body = _ask(configured, "GET", target, given)
        assert (status, body) == (200, b"body")
        assert not [name for name in headers if name.lower().startswith("access-control-")]
        assert ("Vary" in headers) is bool(given)


def test_rules_are_their_owners(configured: Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert _ask(configured, method, f"/{_BUCKET}?cors", {})[0] == 403
