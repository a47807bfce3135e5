"""Questions about a bucket, and copies of ranges, through the real daemon and boto3."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
from tests.functional import daemon_process

Client = Any


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a node with one bucket."""
    folder: pathlib.Path = tmp_path_factory.mktemp("questions") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as server:
        made = daemon_process.boto_client(server)
        made.create_bucket(Bucket="asked")
        yield made


def test_a_bucket_tells_its_region_as_none_where_it_is_the_first(client: Client) -> None:
    assert client.get_bucket_location(Bucket="asked").get("LocationConstraint") is None
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.get_bucket_location(Bucket="missing")
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"


def test_a_bucket_tells_who_owns_what_is_put_and_what_of_it_may_be_public(client: Client) -> None:
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    client.put_bucket_ownership_controls(Bucket="asked", OwnershipControls=controls)
    found = client.get_bucket_ownership_controls(Bucket="asked")["OwnershipControls"]
    assert found == controls
    blocked = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": False,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": False,
    }
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.get_public_access_block(Bucket="asked")
    assert caught.value.response["Error"]["Code"] == "NoSuchPublicAccessBlockConfiguration"
    client.put_public_access_block(Bucket="asked", PublicAccessBlockConfiguration=blocked)
    found = client.get_public_access_block(Bucket="asked")["PublicAccessBlockConfiguration"]
    assert found == blocked


def test_the_older_listing_goes_on_behind_a_marker(client: Client) -> None:
    keys = [f"listed/{number}" for number in range(5)]
    for key in keys:
        client.put_object(Bucket="asked", Key=key, Body=b"x")
    first = client.list_objects(Bucket="asked", Prefix="listed/", MaxKeys=2)
    assert [each["Key"] for each in first["Contents"]] == keys[:2]
    assert first["IsTruncated"] is True
    rest = client.list_objects(Bucket="asked", Prefix="listed/", Marker=keys[1])
    assert [each["Key"] for each in rest["Contents"]] == keys[2:]
    assert rest["IsTruncated"] is False


def test_a_part_is_copied_from_a_range_of_an_object(client: Client) -> None:
    content = bytes(range(256)) * 30_000
    client.put_object(Bucket="asked", Key="source", Body=content)
    place = {"Bucket": "asked", "Key": "joined"}
    upload_id = client.create_multipart_upload(**place)["UploadId"]
    parts = []
    for number, (start, end) in enumerate(((100, 5_300_000), (0, 9)), 1):
        copied = client.upload_part_copy(
            **place,
            UploadId=upload_id,
            PartNumber=number,
            CopySource="asked/source",
            CopySourceRange=f"bytes={start}-{end}",
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    client.complete_multipart_upload(**place, UploadId=upload_id, MultipartUpload={"Parts": parts})
    body = client.get_object(**place)["Body"]
    assert body.read() == content[100:5_300_001] + content[:10]
