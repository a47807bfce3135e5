"""Versions of objects through the real daemon and boto3, crash and lost index included."""

from __future__ import annotations

import pathlib
import shutil
import typing
from collections.abc import Iterator

import botocore.exceptions
import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

_BUCKET: typing.Final = "versioned"
_PART_BYTES: typing.Final = 5 << 20

Client = typing.Any


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[server_process.ServerProcess]:
    folder = tmp_path_factory.mktemp("versions") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as running:
        yield running


@pytest.fixture
def client(server: server_process.ServerProcess) -> Iterator[Client]:
    """With an empty bucket that never had versioning; emptied afterwards, as tools do it."""
    made = daemon_process.boto_client(server)
    made.create_bucket(Bucket=_BUCKET)
    yield made
    for page in made.get_paginator("list_object_versions").paginate(
        Bucket=_BUCKET, PaginationConfig={"PageSize": 3}
    ):
        found = page.get("Versions", []) + page.get("DeleteMarkers", [])
        if found:
            doomed = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            answer = made.delete_objects(Bucket=_BUCKET, Delete={"Objects": doomed, "Quiet": True})
            assert "Errors" not in answer
    made.delete_bucket(Bucket=_BUCKET)


def _switch(client: Client, status: str) -> None:
    client.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": status})


def _put(client: Client, key: str, body: bytes) -> str:
    answer = client.put_object(Bucket=_BUCKET, Key=key, Body=body)
    return str(answer.get("VersionId", ""))


def _get(client: Client, key: str, **arguments: str) -> bytes:
    body: bytes = client.get_object(Bucket=_BUCKET, Key=key, **arguments)["Body"].read()
    return body


def _listed(client: Client, **arguments: typing.Any) -> list[tuple[str, str, bool, bool]]:
    """Key, id, whether it is the latest, whether it is a delete marker; all pages."""
    entries = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=_BUCKET, **arguments):
        for kind in ("Versions", "DeleteMarkers"):
            entries += [
                (each["Key"], each["VersionId"], each["IsLatest"], kind == "DeleteMarkers")
                for each in page.get(kind, [])
            ]
    return entries


def _refused(caught: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def _header(caught: pytest.ExceptionInfo[botocore.exceptions.ClientError], name: str) -> str:
    headers: dict[str, str] = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    return headers[name]


def test_a_bucket_that_never_had_versions_says_nothing_of_them(client: Client) -> None:
    assert "Status" not in client.get_bucket_versioning(Bucket=_BUCKET)
    assert _put(client, "k", b"1") == ""
    assert "VersionId" not in client.head_object(Bucket=_BUCKET, Key="k")
    assert _get(client, "k", VersionId="null") == b"1"
    answer = client.delete_object(Bucket=_BUCKET, Key="k")
    assert "VersionId" not in answer
    assert "DeleteMarker" not in answer
    assert _listed(client) == []


def test_every_version_stays_until_it_is_deleted_by_its_id(client: Client) -> None:
    _put(client, "k", b"before")
    _switch(client, "Enabled")
    assert client.get_bucket_versioning(Bucket=_BUCKET)["Status"] == "Enabled"
    first, second = _put(client, "k", b"first"), _put(client, "k", b"second")
    assert len({first, second, "null"}) == 3
    assert _get(client, "k") == b"second"
    assert client.head_object(Bucket=_BUCKET, Key="k")["VersionId"] == second
    for version_id, body in (("null", b"before"), (first, b"first"), (second, b"second")):
        assert _get(client, "k", VersionId=version_id) == body
    gone = client.delete_object(Bucket=_BUCKET, Key="k")
    marker = gone["VersionId"]
    assert gone["DeleteMarker"] is True
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        _get(client, "k")
    assert _refused(caught) == ("NoSuchKey", 404)
    assert _header(caught, "x-amz-delete-marker") == "true"
    assert _header(caught, "x-amz-version-id") == marker
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        _get(client, "k", VersionId=marker)
    assert _refused(caught) == ("MethodNotAllowed", 405)
    assert _header(caught, "x-amz-delete-marker") == "true"
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.head_object(Bucket=_BUCKET, Key="k")
    assert _header(caught, "x-amz-delete-marker") == "true"
    assert "Contents" not in client.list_objects_v2(Bucket=_BUCKET)
    everything = [
        ("k", marker, True, True),
        ("k", second, False, False),
        ("k", first, False, False),
        ("k", "null", False, False),
    ]
    # A page names versions and markers apart, so the order is seen page by page.
    assert _listed(client, PaginationConfig={"PageSize": 1}) == everything
    assert client.delete_object(Bucket=_BUCKET, Key="k", VersionId=first)["VersionId"] == first
    undone = client.delete_object(Bucket=_BUCKET, Key="k", VersionId=marker)
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker)
    assert _get(client, "k") == b"second"
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.delete_bucket(Bucket=_BUCKET)
    assert _refused(caught) == ("BucketNotEmpty", 409)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        _get(client, "k", VersionId=first)
    assert _refused(caught) == ("NoSuchVersion", 404)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        _get(client, "k", VersionId="no id at all")
    assert _refused(caught) == ("InvalidArgument", 400)
    assert "VersionId" in client.delete_object(Bucket=_BUCKET, Key="never was")


def test_suspended_versioning_replaces_what_has_no_id(client: Client) -> None:
    _switch(client, "Enabled")
    kept = _put(client, "k", b"kept")
    _switch(client, "Suspended")
    assert client.get_bucket_versioning(Bucket=_BUCKET)["Status"] == "Suspended"
    # As S3, the answer to a write names only versions that have an id.
    assert _put(client, "k", b"one") == ""
    assert _put(client, "k", b"two") == ""
    assert client.head_object(Bucket=_BUCKET, Key="k")["VersionId"] == "null"
    assert _get(client, "k", VersionId="null") == _get(client, "k") == b"two"
    assert _listed(client) == [("k", "null", True, False), ("k", kept, False, False)]
    gone = client.delete_object(Bucket=_BUCKET, Key="k")
    assert (gone["DeleteMarker"], gone["VersionId"]) == (True, "null")
    assert sorted(_listed(client)) == sorted([("k", "null", True, True), ("k", kept, False, False)])
    client.delete_object(Bucket=_BUCKET, Key="k", VersionId="null")
    assert _get(client, "k") == b"kept"


def test_many_are_deleted_at_once_with_and_without_ids(client: Client) -> None:
    _switch(client, "Enabled")
    ids = {key: _put(client, key, key.encode()) for key in ("a", "b", "c")}
    answer = client.delete_objects(
        Bucket=_BUCKET,
        Delete={
            "Objects": [
                {"Key": "a"},
                {"Key": "b", "VersionId": ids["b"]},
                {"Key": "c", "VersionId": "no id at all"},
            ]
        },
    )
    hidden, removed = answer["Deleted"]
    assert (hidden["Key"], hidden["DeleteMarker"], "VersionId" in hidden) == ("a", True, False)
    assert (removed["Key"], removed["VersionId"]) == ("b", ids["b"])
    assert "DeleteMarker" not in removed
    (refused,) = answer["Errors"]
    assert (refused["Key"], refused["Code"]) == ("c", "NoSuchVersion")
    again = client.delete_objects(
        Bucket=_BUCKET,
        Delete={"Objects": [{"Key": "a", "VersionId": hidden["DeleteMarkerVersionId"]}]},
    )
    assert again["Deleted"][0]["DeleteMarkerVersionId"] == hidden["DeleteMarkerVersionId"]
    assert _get(client, "a") == b"a"


def test_copies_and_uploads_have_versions(client: Client) -> None:
    _switch(client, "Enabled")
    old = _put(client, "source", b"old")
    _put(client, "source", b"new")
    copied = client.copy_object(
        Bucket=_BUCKET,
        Key="copy",
        CopySource={"Bucket": _BUCKET, "Key": "source", "VersionId": old},
    )
    assert copied["CopySourceVersionId"] == old
    assert _get(client, "copy", VersionId=copied["VersionId"]) == b"old"
    # An old version comes back by a copy onto its own key; of the current one that is refused.
    itself = {"Bucket": _BUCKET, "Key": "source"}
    client.copy_object(**itself, CopySource={**itself, "VersionId": old})
    assert _get(client, "source") == b"old"
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidRequest"):
        client.copy_object(**itself, CopySource=itself)
    place = {"Bucket": _BUCKET, "Key": "large"}
    small = _put(client, "large", b"small")
    upload = client.create_multipart_upload(**place)["UploadId"]
    bodies = [b"p" * _PART_BYTES, b"q"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(**place, UploadId=upload, PartNumber=number, Body=body)[
                "ETag"
            ],
        }
        for number, body in enumerate(bodies, 1)
    ]
    done = client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert client.head_object(**place)["VersionId"] == done["VersionId"] != small
    _put(client, "large", b"later")
    # A client that did not get the answer asks again, when another version is current.
    again = client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert again["VersionId"] == done["VersionId"]
    assert _get(client, "large", VersionId=done["VersionId"]) == b"".join(bodies)
    assert _get(client, "large", VersionId=small) == b"small"


def test_versions_outlive_a_crash_and_the_index(tmp_path: pathlib.Path) -> None:
    with daemon_process.running(tmp_path / "node", options={"workers": "1"}) as server:
        client = daemon_process.boto_client(server)
        client.create_bucket(Bucket=_BUCKET)
        _switch(client, "Enabled")
        bodies = {_put(client, "k", str(n).encode() * 90_000): n for n in range(5)}
        client.delete_object(Bucket=_BUCKET, Key="k")
        before = _listed(client)
        assert len(before) == 6
        server.kill()
        shutil.rmtree(server.data_dir / "index")
        done = node_command.run("recover", data_dir=server.data_dir)
        assert done.returncode == 0, done.stderr
        server.restart()
        client = daemon_process.boto_client(server)
        assert _listed(client) == before
        for version_id, n in bodies.items():
            assert _get(client, "k", VersionId=version_id) == str(n).encode() * 90_000
