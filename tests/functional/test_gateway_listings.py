"""Listings, multi-deletes and multipart uploads through boto3."""

from __future__ import annotations

import gateway_harness
import pytest
from botocore.exceptions import ClientError
from gateway_harness import call

KEYS = ["a", "b/1", "b/2", "b+c", "d e", "ü", "z/"]


async def test_pages_walk_every_entry_once_in_byte_order() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        for key in KEYS:
            await call(s3.put_object, Bucket="books", Key=key, Body=b"x")
        seen: list[str] = []
        arguments = {"Bucket": "books", "Delimiter": "/", "MaxKeys": 1}
        while True:
            page = await call(s3.list_objects_v2, **arguments)
            seen += [entry["Key"] for entry in page.get("Contents", [])]
            seen += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            if not page["IsTruncated"]:
                break
            arguments["ContinuationToken"] = page["NextContinuationToken"]
        assert seen == ["a", "b+c", "b/", "d e", "z/", "ü"]
        first = await call(s3.list_objects, Bucket="books", Delimiter="/", MaxKeys=3)
        assert (first["IsTruncated"], first["NextMarker"]) == (True, "b/")
        rest = await call(s3.list_objects, Bucket="books", Delimiter="/", Marker="b/")
        assert [entry["Key"] for entry in rest["Contents"]] == ["d e", "ü"]
        empty = await call(s3.list_objects_v2, Bucket="books", MaxKeys=0)
        assert (empty["KeyCount"], empty["IsTruncated"]) == (0, False)
        with pytest.raises(ClientError, match="InvalidArgument"):
            await call(s3.list_objects_v2, Bucket="books", ContinuationToken="%%%")
        start = await call(s3.list_objects_v2, Bucket="books", ContinuationToken="")
        assert (start["ContinuationToken"], start["KeyCount"]) == ("", len(KEYS))
        for prefix in ("\n", "ü b", "\x01"):
            echoed = (await call(s3.list_objects, Bucket="books", Prefix=prefix))["Prefix"]
            assert echoed == (prefix if prefix != "\x01" else "%01")


async def test_a_page_longer_than_any_streamed_piece_arrives_whole() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        keys = [f"{number:04d}-{'k' * 1000}" for number in range(140)]
        for key in keys:
            await call(s3.put_object, Bucket="books", Key=key, Body=b"")
        page = await call(s3.list_objects_v2, Bucket="books")
        assert [entry["Key"] for entry in page["Contents"]] == keys


async def test_pages_of_buckets() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client(parameter_validation=False)
        names = [f"bucket-{number}" for number in range(3)]
        for name in names:
            await call(s3.create_bucket, Bucket=name)
        first = await call(s3.list_buckets, MaxBuckets=2)
        rest = await call(s3.list_buckets, ContinuationToken=first["ContinuationToken"])
        assert [b["Name"] for b in first["Buckets"] + rest["Buckets"]] == names
        here = await call(s3.list_buckets, BucketRegion=gateway_harness.REGION, MaxBuckets=10_000)
        assert [b["Name"] for b in here["Buckets"]] == names
        assert (await call(s3.list_buckets, BucketRegion="eu-west-9"))["Buckets"] == []
        for wrong in (0, 10_001, -1):
            with pytest.raises(ClientError, match="InvalidArgument"):
                await call(s3.list_buckets, MaxBuckets=wrong)


async def test_a_bucket_is_emptied_through_its_versions() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        for key in KEYS:
            await call(s3.put_object, Bucket="books", Key=key, Body=b"x")
        with pytest.raises(ClientError, match="BucketNotEmpty"):
            await call(s3.delete_bucket, Bucket="books")
        page = await call(s3.list_object_versions, Bucket="books")
        doomed = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in page["Versions"]]
        gone = await call(s3.delete_objects, Bucket="books", Delete={"Objects": doomed})
        assert sorted(entry["Key"] for entry in gone["Deleted"]) == sorted(KEYS)
        upload = await call(s3.create_multipart_upload, Bucket="books", Key="k")
        await call(s3.delete_bucket, Bucket="books")
        assert (await call(s3.list_buckets))["Buckets"] == []
        await call(s3.create_bucket, Bucket="books")
        with pytest.raises(ClientError, match="NoSuchUpload"):
            await call(s3.list_parts, Bucket="books", Key="k", UploadId=upload["UploadId"])


async def test_a_bucket_with_objects_keeps_its_uploads() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="k", Body=b"x")
        await call(s3.create_multipart_upload, Bucket="books", Key="k")
        with pytest.raises(ClientError, match="BucketNotEmpty"):
            await call(s3.delete_bucket, Bucket="books")
        assert len((await call(s3.list_multipart_uploads, Bucket="books"))["Uploads"]) == 1


async def test_multipart_from_start_to_end() -> None:
    async with gateway_harness.running() as harness:
        s3 = harness.client()
        await call(s3.create_bucket, Bucket="books")
        await call(s3.put_object, Bucket="books", Key="src", Body=b"0123456789")
        name = {"Bucket": "books", "Key": "k"}
        upload = await call(s3.create_multipart_upload, **name, ContentType="x/y")
        target = {**name, "UploadId": upload["UploadId"]}
        one = await call(s3.upload_part, **target, PartNumber=1, Body=b"a" * 300_000)
        two = await call(
            s3.upload_part_copy,
            **target,
            PartNumber=2,
            CopySource={"Bucket": "books", "Key": "src"},
            CopySourceRange="bytes=3-5",
        )
        listed = await call(s3.list_parts, **target)
        assert [part["Size"] for part in listed["Parts"]] == [300_000, 3]
        going = await call(s3.list_multipart_uploads, Bucket="books")
        assert [entry["UploadId"] for entry in going["Uploads"]] == [upload["UploadId"]]
        parts = [
            {"PartNumber": 1, "ETag": one["ETag"]},
            {"PartNumber": 2, "ETag": two["CopyPartResult"]["ETag"]},
        ]
        done = await call(s3.complete_multipart_upload, **target, MultipartUpload={"Parts": parts})
        assert done["ETag"].endswith('-2"')
        got = await call(s3.get_object, **name, PartNumber=2)
        assert (await call(got["Body"].read), got["PartsCount"]) == (b"345", 2)
        assert (await call(s3.head_object, **name))["ContentType"] == "x/y"
        with pytest.raises(ClientError, match="NoSuchUpload"):
            await call(s3.abort_multipart_upload, **target)
