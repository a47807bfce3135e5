"""Tags of objects and buckets through the real daemon and boto3."""

from __future__ import annotations

import pathlib
import typing
import urllib.parse
from collections.abc import Iterator

import botocore.exceptions
import pytest
from tests.functional import daemon_process

_BUCKET: typing.Final = "tagged"
_PLACE: typing.Final = {"Bucket": _BUCKET, "Key": "k"}

Client = typing.Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: pathlib.Path = tmp_path_factory.mktemp("tags") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as server:
        yield daemon_process.boto_client(server)


@pytest.fixture
def client(made: Client) -> Iterator[Client]:
    made.create_bucket(Bucket=_BUCKET)
    yield made
    for page in made.get_paginator("list_object_versions").paginate(Bucket=_BUCKET):
        for each in page.get("Versions", []) + page.get("DeleteMarkers", []):
            made.delete_object(Bucket=_BUCKET, Key=each["Key"], VersionId=each["VersionId"])
    made.delete_bucket(Bucket=_BUCKET)


def _set(tags: dict[str, str]) -> dict[str, typing.Any]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _tags(client: Client, **place: str) -> dict[str, str]:
    answer = client.get_object_tagging(**(place or _PLACE))
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def _refused(caught: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_tags_are_put_read_replaced_and_removed(client: Client) -> None:
    client.put_object(**_PLACE, Body=b"body")
    before = client.head_object(**_PLACE)
    assert _tags(client) == {}
    assert "TagCount" not in before
    tags = {"Größe": "9 m/s", "a.b-c_d:e@f=g+": "", "k" * 128: "v" * 256}
    client.put_object_tagging(**_PLACE, Tagging=_set(tags))
    assert _tags(client) == tags
    after = client.get_object(**_PLACE)
    after["Body"].close()
    assert after["TagCount"] == 3
    assert (after["LastModified"], after["ETag"]) == (before["LastModified"], before["ETag"])
    client.put_object_tagging(**_PLACE, Tagging=_set({"only": "one"}))
    assert _tags(client) == {"only": "one"}
    answer = client.delete_object_tagging(**_PLACE)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert _tags(client) == {}
    assert client.get_object(**_PLACE)["Body"].read() == b"body"


@pytest.mark.parametrize(
    "tags",
    [
        {f"k{n}": "" for n in range(11)},
        {"k" * 129: ""},
        {"k": "v" * 257},
        {"aws:mine": "v"},
        {"k": "<v>"},
        {"k": "line\nbreak"},
    ],
    ids=["many", "long key", "long value", "reserved", "signs", "control"],
)
def test_tags_that_break_the_rules_change_nothing(client: Client, tags: dict[str, str]) -> None:
    client.put_object(**_PLACE, Tagging="a=b")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.put_object_tagging(**_PLACE, Tagging=_set(tags))
    assert _refused(caught) == ("InvalidTag", 400)
    assert _tags(client) == {"a": "b"}
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.put_object(**_PLACE, Body=b"x", Tagging=urllib.parse.urlencode(tags))
    assert _refused(caught) == ("InvalidTag", 400)
    assert client.head_object(**_PLACE)["ContentLength"] == 0


def test_tags_come_with_writes_copies_and_uploads(client: Client) -> None:
    client.put_object(**_PLACE, Body=b"1", Tagging="a=b&c=d%20e+f&g")
    tags = {"a": "b", "c": "d e f", "g": ""}
    assert _tags(client) == tags
    source = {"Bucket": _BUCKET, "Key": "k"}
    client.copy_object(Bucket=_BUCKET, Key="same", CopySource=source)
    assert _tags(client, Bucket=_BUCKET, Key="same") == tags
    client.copy_object(
        Bucket=_BUCKET, Key="other", CopySource=source, TaggingDirective="REPLACE", Tagging="x=y"
    )
    assert _tags(client, Bucket=_BUCKET, Key="other") == {"x": "y"}
    place = {"Bucket": _BUCKET, "Key": "large"}
    upload = client.create_multipart_upload(**place, Tagging="m=n")["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"p")
    client.complete_multipart_upload(
        **place,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert _tags(client, **place) == {"m": "n"}
    client.put_object(**_PLACE, Body=b"2")
    assert _tags(client) == {}
    for twice in ("a=b&a=c", "%ff=1"):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            client.put_object(**_PLACE, Body=b"3", Tagging=twice)
        assert _refused(caught)[1] == 400
    assert client.get_object(**_PLACE)["Body"].read() == b"2"


def test_each_version_has_its_own_tags(client: Client) -> None:
    client.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(**_PLACE, Body=b"1", Tagging="a=1")["VersionId"]
    new = client.put_object(**_PLACE, Body=b"2", Tagging="a=2")["VersionId"]
    answer = client.put_object_tagging(**_PLACE, VersionId=old, Tagging=_set({"a": "changed"}))
    assert answer["VersionId"] == old
    assert _tags(client, **_PLACE, VersionId=old) == {"a": "changed"}
    assert _tags(client) == {"a": "2"}
    assert client.get_object(**_PLACE, VersionId=old)["Body"].read() == b"1"
    assert client.delete_object_tagging(**_PLACE)["VersionId"] == new
    assert _tags(client, **_PLACE, VersionId=old) == {"a": "changed"}
    client.delete_object(**_PLACE)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        _tags(client)
    assert _refused(caught) == ("NoSuchKey", 404)


def test_a_bucket_has_tags_of_its_own(client: Client) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.get_bucket_tagging(Bucket=_BUCKET)
    assert _refused(caught) == ("NoSuchTagSet", 404)
    tags = {f"k{n}": str(n) for n in range(50)}
    client.put_bucket_tagging(Bucket=_BUCKET, Tagging=_set(tags))
    answer = client.get_bucket_tagging(Bucket=_BUCKET)
    assert {tag["Key"]: tag["Value"] for tag in answer["TagSet"]} == tags
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.put_bucket_tagging(Bucket=_BUCKET, Tagging=_set(tags | {"one": "more"}))
    assert _refused(caught) == ("InvalidTag", 400)
    client.delete_bucket_tagging(Bucket=_BUCKET)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.get_bucket_tagging(Bucket=_BUCKET)
    assert _refused(caught) == ("NoSuchTagSet", 404)
