"""MinIO's Python SDK, unchanged: path-style, and the checksums of its default."""

from __future__ import annotations

import concurrent.futures
import datetime
import filecmp
import io
import pathlib
import random
import typing

import minio
import minio.commonconfig
import minio.datatypes
import minio.deleteobjects
import minio.error
import minio.versioningconfig
import pytest
import urllib3
from tests.functional import daemon_process

from couchestor_bench import server_process

_MIB: typing.Final = 1024 * 1024
_PART: typing.Final = 5 * _MIB


@pytest.fixture
def http() -> typing.Iterator[urllib3.PoolManager]:
    """Connections of somebody who has no keys; no retry hides a failure."""
    with urllib3.PoolManager(maxsize=16, retries=False, timeout=60.0) as pool:
        yield pool


@pytest.fixture
def client(daemon: server_process.ServerProcess, http: urllib3.PoolManager) -> typing.Any:
    return minio.Minio(
        daemon.host,
        access_key=daemon.credentials.access_key,
        secret_key=daemon.credentials.secret_key,
        secure=False,
        http_client=http,
    )


def _tags(tags: typing.Any, told: dict[str, str]) -> typing.Any:
    tags.update(told)
    return tags


def _named(found: typing.Iterable[typing.Any]) -> list[str]:
    return [row.object_name for row in found]


def test_a_file_goes_up_in_parts_and_comes_down(
    client: typing.Any, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    bucket, key, source = daemon_process.BUCKET, "minio/large é +.bin", tree / "large.bin"
    put = client.fput_object(
        bucket, key, str(source), part_size=_PART, content_type="application/x-proof",
        metadata={"Colour": "blue"},
    )  # fmt: skip
    assert put.etag.endswith("-4")
    client.fget_object(bucket, key, str(tmp_path / "down"))
    assert filecmp.cmp(source, tmp_path / "down", shallow=False)
    told = client.stat_object(bucket, key)
    assert (told.size, told.content_type, told.etag) == (
        source.stat().st_size,
        "application/x-proof",
        put.etag,
    )
    assert told.metadata["x-amz-meta-colour"] == "blue"
    with client.get_object(bucket, key, offset=_PART - 3, length=7) as part:
        assert part.read() == source.read_bytes()[_PART - 3 : _PART + 4]


def test_a_stream_of_unknown_length_is_kept(client: typing.Any) -> None:
    body = random.Random(3).randbytes(_PART + _PART // 2)
    put = client.put_object(
        daemon_process.BUCKET, "minio/stream", io.BytesIO(body), -1, part_size=_PART
    )
    assert put.etag.endswith("-2")
    with client.get_object(daemon_process.BUCKET, "minio/stream") as answer:
        assert answer.read() == body


def test_objects_are_copied_and_composed(client: typing.Any, tree: pathlib.Path) -> None:
    bucket, large = daemon_process.BUCKET, tree / "large.bin"
    client.fput_object(bucket, "minio/source", str(large))
    source = minio.commonconfig.CopySource(bucket, "minio/source")
    client.copy_object(bucket, "minio/copied é", source)
    with client.get_object(bucket, "minio/copied é") as answer:
        assert answer.read() == large.read_bytes()
    client.compose_object(
        bucket,
        "minio/composed",
        [
            minio.commonconfig.ComposeSource(bucket, "minio/copied é"),
            minio.commonconfig.ComposeSource(bucket, "minio/source", offset=5, length=11),
        ],
    )
    with client.get_object(bucket, "minio/composed") as answer:
        assert answer.read() == large.read_bytes() + large.read_bytes()[5:16]


def test_more_objects_than_a_page_has_are_listed_and_removed(
    client: typing.Any, tree: pathlib.Path
) -> None:
    bucket, body = "minio-many", (tree / "json" / "__init__.py").read_bytes()
    client.make_bucket(bucket)
    keys = [f"{index % 3}/{index:04} é.py" for index in range(1_050)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for put in [
            threads.submit(client.put_object, bucket, key, io.BytesIO(body), len(body))
            for key in keys
        ]:
            put.result()
    assert _named(client.list_objects(bucket)) == ["0/", "1/", "2/"]
    listed = list(client.list_objects(bucket, recursive=True))
    assert _named(listed) == sorted(keys)
    assert {(row.size, row.is_dir) for row in listed} == {(len(body), False)}
    assert _named(client.list_objects(bucket, recursive=True, use_api_v1=True)) == sorted(keys)
    after = client.list_objects(bucket, prefix="2/", start_after="2/1000", recursive=True)
    assert _named(after) == [key for key in sorted(keys) if key > "2/1000"]
    with pytest.raises(minio.error.S3Error) as refused:
        client.remove_bucket(bucket)
    assert refused.value.code == "BucketNotEmpty"
    gone = (minio.deleteobjects.DeleteObject(key) for key in keys)
    assert list(client.remove_objects(bucket, gone)) == []
    assert list(client.list_objects(bucket, recursive=True)) == []
    client.remove_bucket(bucket)
    assert not client.bucket_exists(bucket)


def test_tags_of_objects_and_buckets_are_kept(client: typing.Any) -> None:
    bucket, key, told = daemon_process.BUCKET, "minio/tagged", {"team": "a b+c", "é": "/=:@"}
    first = _tags(minio.commonconfig.Tags.new_object_tags(), {"at": "once"})
    client.put_object(bucket, key, io.BytesIO(b"x"), 1, tags=first)
    assert client.get_object_tags(bucket, key) == {"at": "once"}
    client.set_object_tags(bucket, key, _tags(minio.commonconfig.Tags.new_object_tags(), told))
    assert client.get_object_tags(bucket, key) == told
    client.delete_object_tags(bucket, key)
    assert client.get_object_tags(bucket, key) is None
    assert client.get_bucket_tags(bucket) is None
    client.set_bucket_tags(bucket, _tags(minio.commonconfig.Tags.new_bucket_tags(), told))
    assert client.get_bucket_tags(bucket) == told
    client.delete_bucket_tags(bucket)
    assert client.get_bucket_tags(bucket) is None


def test_versions_are_kept_listed_read_and_removed(client: typing.Any) -> None:
    bucket, key = "minio-versions", "kept"
    client.make_bucket(bucket)
    config = minio.versioningconfig.VersioningConfig
    assert client.get_bucket_versioning(bucket).status is None
    client.set_bucket_versioning(bucket, config(minio.commonconfig.ENABLED))
    assert client.get_bucket_versioning(bucket).status == minio.commonconfig.ENABLED
    bodies = {
        client.put_object(bucket, key, io.BytesIO(body), len(body)).version_id: body
        for body in (b"first", b"second")
    }
    first, second = bodies
    client.remove_object(bucket, key)
    with pytest.raises(minio.error.S3Error) as missing:
        client.get_object(bucket, key)
    assert missing.value.code == "NoSuchKey"
    listed = list(client.list_objects(bucket, recursive=True, include_version=True))
    # It tells the delete markers of a page after its versions.
    assert [(row.version_id, row.is_latest) for row in listed[:2]] == [
        (second, "false"),
        (first, "false"),
    ]
    [marker] = listed[2:]
    assert (marker.is_delete_marker, marker.is_latest) == (True, "true")
    for version, body in bodies.items():
        with client.get_object(bucket, key, version_id=version) as answer:
            assert answer.read() == body
    client.remove_object(bucket, key, version_id=marker.version_id)
    assert client.stat_object(bucket, key).version_id == second
    gone = [minio.deleteobjects.DeleteObject(key, version) for version in bodies]
    assert list(client.remove_objects(bucket, gone)) == []
    client.set_bucket_versioning(bucket, config(minio.versioningconfig.SUSPENDED))
    client.remove_bucket(bucket)


def test_presigned_urls_and_forms_work_without_keys(
    client: typing.Any, daemon: server_process.ServerProcess, http: urllib3.PoolManager
) -> None:
    bucket, key = daemon_process.BUCKET, "minio/shared é +"
    lifetime = datetime.timedelta(seconds=60)
    put = http.request("PUT", client.presigned_put_object(bucket, key, lifetime), body=b"by url")
    assert put.status == 200
    named = {"response-content-disposition": 'attachment; filename="a b.txt"'}
    url = client.presigned_get_object(bucket, key, lifetime, response_headers=named)
    got = http.request("GET", url)
    assert (got.status, got.data) == (200, b"by url")
    assert got.headers["Content-Disposition"] == 'attachment; filename="a b.txt"'
    assert http.request("GET", url.replace("minio/shared", "minio/other")).status == 403
    now = datetime.datetime.now(datetime.UTC)
    policy = minio.datatypes.PostPolicy(bucket, now + lifetime)
    policy.add_equals_condition("key", "minio/posted")
    policy.add_content_length_range_condition(1, 100)
    fields = {**client.presigned_post_policy(policy), "key": "minio/posted"}
    for body, status in ((b"by form", 204), (b"x" * 101, 400)):
        posted = http.request(
            "POST",
            f"{daemon.endpoint}/{bucket}",
            fields={**fields, "file": ("name", body, "text/plain")},
        )
        assert posted.status == status, posted.data
    with client.get_object(bucket, "minio/posted") as answer:
        assert answer.read() == b"by form"
