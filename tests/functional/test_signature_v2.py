"""Clients that sign by version 2 through the real daemon, where that is switched on."""

from __future__ import annotations

import pathlib
import typing
import urllib.error
import urllib.request
from collections.abc import Iterator

import botocore.exceptions
import pytest
from tests.functional import daemon_process

_PLACE: typing.Final = {"Bucket": "old", "Key": "a b/ü+x"}

Client = typing.Any


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: pathlib.Path = tmp_path_factory.mktemp("v2") / "node"
    options = {"workers": "1", "signature-v2": "true"}
    with daemon_process.running(folder, options=options) as server:
        made = daemon_process.boto_client(server, signature_version="s3")
        made.create_bucket(Bucket="old")
        yield made


def test_objects_are_written_listed_and_read(client: Client) -> None:
    client.put_object(**_PLACE, Body=b"body", Metadata={"two": "a  b"}, ContentType="text/x")
    found = client.get_object(**_PLACE, ResponseContentType="text/y", Range="bytes=1-2")
    assert (found["Body"].read(), found["ContentType"]) == (b"od", "text/y")
    assert found["Metadata"] == {"two": "a  b"}
    listed = client.list_objects_v2(Bucket="old", Prefix="a ")["Contents"]
    assert [each["Key"] for each in listed] == [_PLACE["Key"]]
    client.put_object_tagging(**_PLACE, Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    upload = client.create_multipart_upload(Bucket="old", Key="parts")["UploadId"]
    part = client.upload_part(
        Bucket="old", Key="parts", UploadId=upload, PartNumber=1, Body=b"whole"
    )
    client.complete_multipart_upload(
        Bucket="old",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    client.delete_objects(Bucket="old", Delete={"Objects": [{"Key": "parts"}]})
    assert [each["Name"] for each in client.list_buckets()["Buckets"]] == ["old", "proof"]


def test_what_a_signature_does_not_cover_is_refused(client: Client) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="does not cover") as caught:
        client.delete_public_access_block(Bucket="old")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_urls_carry_headers(client: Client) -> None:
    more = {"Metadata": {"a": "1"}, "ContentType": "text/z"}
    url = client.generate_presigned_url("put_object", Params={**_PLACE, **more})
    assert "Signature=" in url
    assert "X-Amz" not in url
    request = urllib.request.Request(url, data=b"sent", method="PUT")
    request.add_header("Content-Type", "text/z")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    head = client.head_object(**_PLACE)
    assert (head["Metadata"], head["ContentType"]) == ({"a": "1"}, "text/z")
    url = client.generate_presigned_url("get_object", Params=_PLACE)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"sent"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("Expires=", "Expires=1"), timeout=10)
    with caught.value as failure:
        assert (failure.code, b"SignatureDoesNotMatch" in failure.read()) == (403, True)
