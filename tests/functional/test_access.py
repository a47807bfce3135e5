"""Several users and nobody at the real daemon: what each may do, and what survives a crash."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import time
import typing
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError
from tests.functional import daemon_process, several_users

from couchestor_bench import server_process
from couchestor_gateway.edge import routing
from couchestor_gateway.protocol import operation_needs

ALL_USERS: typing.Final = "http://acs.amazonaws.com/groups/global/AllUsers"
Client = typing.Any

DENIED: typing.Final = several_users.DENIED
SECRET: typing.Final = several_users.SECRET
_client = several_users.client
_read = several_users.read
_refused = several_users.refusal
_write_users = several_users.write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder = tmp_path_factory.mktemp("access")
    _write_users(folder / "users.toml", "ada", "bob")
    options = {"workers": "2", "users-file": str(folder / "users.toml")}
    with daemon_process.running(folder / "node", options=options) as running:
        yield running


@pytest.fixture
def ada(server: server_process.ServerProcess) -> Client:
    """Whose bucket it is."""
    return _client(server, "ada")


@pytest.fixture
def bob(server: server_process.ServerProcess) -> Client:
    return _client(server, "bob")


@pytest.fixture
def nobody(server: server_process.ServerProcess) -> Client:
    return _client(server, None)


@pytest.fixture
def bucket(ada: Client) -> str:
    """Ada's, private, with an object ``k``."""
    name = f"b-{uuid.uuid4().hex}"
    ada.create_bucket(Bucket=name)
    ada.put_object(Bucket=name, Key="k", Body=b"hers")
    return name


def _status_of(call: Callable[[], object]) -> int:
    """200 for whatever success."""
    try:
        call()
    except ClientError as refusal:
        return int(refusal.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


_SERVICE: typing.Final = [
    name
    for name, need in operation_needs.NEEDS.items()
    if need.place is operation_needs.Place.SERVICE
]


@pytest.mark.parametrize("user", ["bob", None])
def test_strangers_and_nobody_are_denied_every_operation(
    server: server_process.ServerProcess, ada: Client, bucket: str, user: str | None
) -> None:
    upload_id = ada.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    operations = sorted({each.name for each in routing.served()} - set(_SERVICE))
    assert len(operations) > 35
    answers = {
        name: several_users.status(server, name, bucket, upload_id, user) for name in operations
    }
    assert set(answers.values()) == {403}, answers
    assert _read(ada, bucket) == b"hers"
    assert ada.list_parts(Bucket=bucket, Key="k", UploadId=upload_id)["Owner"]["ID"] == "ada-id"


def test_nobody_has_no_buckets(nobody: Client, bucket: str) -> None:
    assert _refused(nobody.list_buckets) == DENIED
    assert _refused(nobody.create_bucket, Bucket=f"{bucket[:40]}-x") == DENIED
    assert _refused(nobody.get_object, Bucket=f"{bucket[:40]}-x", Key="k") == ("NoSuchBucket", 404)


def test_each_lists_their_own_buckets(ada: Client, bob: Client, bucket: str) -> None:
    assert bucket in [each["Name"] for each in ada.list_buckets()["Buckets"]]
    listed = bob.list_buckets()
    assert bucket not in [each["Name"] for each in listed["Buckets"]]
    assert listed["Owner"] == {"ID": "bob-id", "DisplayName": "Bob"}
    assert _refused(bob.create_bucket, Bucket=bucket) == ("BucketAlreadyExists", 409)
    ada.create_bucket(Bucket=bucket)
    assert _refused(ada.create_bucket, Bucket=bucket, ACL="public-read")[1] == 409


@pytest.mark.parametrize(
    ("permission", "may"),
    [
        ("READ", {"head_bucket", "list_objects_v2", "list_object_versions"}),
        ("WRITE", {"put_object", "delete_object", "upload"}),
        ("READ_ACP", {"get_bucket_acl"}),
        ("WRITE_ACP", {"put_bucket_acl"}),
        (
            "FULL_CONTROL",
            {
                *("head_bucket", "list_objects_v2", "list_object_versions", "put_object"),
                *("delete_object", "upload", "get_bucket_acl", "put_bucket_acl"),
            },
        ),
    ],
)
def test_what_a_grant_on_a_bucket_gives(
    ada: Client, bob: Client, bucket: str, permission: str, may: set[str]
) -> None:
    grants = {"GrantFullControl": "id=ada-id"}
    if permission == "FULL_CONTROL":
        grants["GrantFullControl"] += ",id=bob-id"
    else:
        name = "Grant" + permission.title().replace("_Acp", "ACP")
        grants[name] = 'emailAddress="bob@example.com"'
    ada.put_bucket_acl(Bucket=bucket, **grants)
    here = {"Bucket": bucket}
    calls: dict[str, Callable[[], object]] = {
        "head_bucket": lambda: bob.head_bucket(**here),
        "list_objects_v2": lambda: bob.list_objects_v2(**here),
        "list_object_versions": lambda: bob.list_object_versions(**here),
        "put_object": lambda: bob.put_object(**here, Key="bobs", Body=b"his"),
        "delete_object": lambda: bob.delete_object(**here, Key="bobs"),
        "upload": lambda: bob.create_multipart_upload(**here, Key="up"),
        "get_bucket_acl": lambda: bob.get_bucket_acl(**here),
        "delete_bucket": lambda: bob.delete_bucket(**here),
        "put_bucket_tagging": lambda: bob.put_bucket_tagging(
            **here, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
        ),
        "get_object": lambda: _read(bob, bucket),
        "get_object_acl": lambda: bob.get_object_acl(**here, Key="k"),
        "put_object_acl": lambda: bob.put_object_acl(**here, Key="k", ACL="private"),
        "delete_version": lambda: bob.delete_object(**here, Key="k", VersionId="null"),
        # Last, because it takes all of it away.
        "put_bucket_acl": lambda: bob.put_bucket_acl(**here, ACL="private"),
    }
    outcomes = {name: _status_of(call) for name, call in calls.items()}
    assert outcomes == {name: 200 if name in may else 403 for name in calls}


def test_grants_on_an_object_and_copies_of_it(ada: Client, bob: Client, bucket: str) -> None:
    own = f"{bucket[:40]}-own"
    bob.create_bucket(Bucket=own)
    copy = {"Bucket": own, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "k"}}
    assert _refused(bob.copy_object, **copy) == DENIED
    ada.put_object_acl(Bucket=bucket, Key="k", GrantRead="id=bob-id", GrantReadACP="id=bob-id")
    assert _read(bob, bucket) == b"hers"
    bob.copy_object(**copy)
    assert _read(bob, own, "copy") == b"hers"
    assert _refused(ada.get_object, Bucket=own, Key="copy") == DENIED
    # The list that was given is the whole list: Ada's own right to read is not on it.
    assert _refused(ada.get_object, Bucket=bucket, Key="k") == DENIED
    told = bob.get_object_acl(Bucket=bucket, Key="k")
    assert told["Owner"] == {"ID": "ada-id", "DisplayName": "Ada"}
    assert [(g["Grantee"]["ID"], g["Permission"]) for g in told["Grants"]] == [
        ("bob-id", "READ"),
        ("bob-id", "READ_ACP"),
    ]
    assert _refused(bob.put_object_acl, Bucket=bucket, Key="k", ACL="public-read") == DENIED
    ada.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert _read(ada, bucket) == b"hers"
    assert _refused(bob.get_object, Bucket=bucket, Key="k") == DENIED


def test_what_is_missing_is_told_to_who_may_list(ada: Client, nobody: Client, bucket: str) -> None:
    gone = {"Bucket": bucket, "Key": "none"}
    assert _refused(nobody.get_object, **gone) == DENIED
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert _refused(nobody.get_object, **gone) == ("NoSuchKey", 404)
    assert _refused(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    assert [each["Key"] for each in nobody.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]
    ada.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    page = {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/html"}
    assert _refused(nobody.get_object, **page) == ("InvalidRequest", 400)
    assert _refused(nobody.head_object, **page)[1] == 400
    answer = ada.get_object(**page)
    assert (answer["Body"].read(), answer["ContentType"]) == (b"hers", "text/html")


def test_each_version_has_its_own_list(ada: Client, nobody: Client, bucket: str) -> None:
    ada.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = ada.put_object(Bucket=bucket, Key="k", Body=b"1", ACL="public-read")["VersionId"]
    second = ada.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    assert _read(nobody, bucket, VersionId=first) == b"1"
    assert _refused(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    ada.put_object_acl(Bucket=bucket, Key="k", VersionId=first, ACL="private")
    ada.put_object_acl(Bucket=bucket, Key="k", VersionId=second, ACL="public-read")
    assert _read(nobody, bucket) == b"2"
    assert _refused(nobody.get_object, Bucket=bucket, Key="k", VersionId=first) == DENIED
    told = ada.get_object_acl(Bucket=bucket, Key="k", VersionId=first)["Grants"]
    assert len(told) == 1


def test_who_owns_what_is_written_into_a_public_bucket(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    bob.put_object(Bucket=bucket, Key="his", Body=b"his")
    assert _refused(ada.get_object, Bucket=bucket, Key="his") == DENIED
    bob.put_object(Bucket=bucket, Key="shown", Body=b"his", ACL="bucket-owner-read")
    assert _read(ada, bucket, "shown") == b"his"
    nobody.put_object(Bucket=bucket, Key="found", Body=b"nobody's")
    assert _read(ada, bucket, "found") == b"nobody's"
    assert _refused(nobody.get_object, Bucket=bucket, Key="found") == DENIED
    listed = bob.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert {each["Key"]: each["Owner"]["DisplayName"] for each in listed} == {
        "found": "Ada",
        "his": "Bob",
        "k": "Ada",
        "shown": "Bob",
    }
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    ada.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    bob.put_object(Bucket=bucket, Key="given", Body=b"", ACL="bucket-owner-full-control")
    assert ada.get_object_acl(Bucket=bucket, Key="given")["Owner"]["ID"] == "ada-id"
    controls["Rules"][0]["ObjectOwnership"] = "BucketOwnerEnforced"
    refused = _refused(ada.put_bucket_ownership_controls, Bucket=bucket, OwnershipControls=controls)
    assert refused == ("InvalidBucketAclWithObjectOwnership", 400)
    ada.put_bucket_acl(Bucket=bucket, ACL="private")
    ada.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    assert _read(ada, bucket, "his") == b"his"
    assert _refused(bob.get_object, Bucket=bucket, Key="his") == DENIED
    refused = _refused(ada.put_object_acl, Bucket=bucket, Key="his", ACL="public-read")
    assert refused == ("AccessControlListNotSupported", 400)
    ada.delete_bucket_ownership_controls(Bucket=bucket)
    assert _read(bob, bucket, "his") == b"his"


def test_a_blocked_public_stays_out(ada: Client, nobody: Client, bucket: str) -> None:
    ada.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": False}
    ada.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert _refused(ada.put_bucket_acl, Bucket=bucket, ACL="public-read") == DENIED
    assert _refused(ada.put_object_acl, Bucket=bucket, Key="k", ACL="authenticated-read") == DENIED
    put = {"Bucket": bucket, "Key": "new", "GrantRead": f"uri={ALL_USERS}"}
    assert _refused(ada.put_object, **put) == DENIED
    assert _refused(ada.create_multipart_upload, **put) == DENIED
    assert _read(nobody, bucket) == b"hers"
    block["IgnorePublicAcls"] = True
    ada.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert _refused(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    ada.delete_public_access_block(Bucket=bucket)
    assert _read(nobody, bucket) == b"hers"


def test_an_upload_is_its_initiators_and_the_bucket_owners(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert _refused(nobody.create_multipart_upload, Bucket=bucket, Key="u") == DENIED
    hers = ada.create_multipart_upload(Bucket=bucket, Key="u")["UploadId"]
    upload = {"Bucket": bucket, "Key": "u", "UploadId": hers}
    assert _refused(bob.upload_part, **upload, PartNumber=1, Body=b"x") == DENIED
    assert _refused(bob.list_parts, **upload) == DENIED
    assert _refused(bob.abort_multipart_upload, **upload) == DENIED
    his = bob.create_multipart_upload(Bucket=bucket, Key="u", ACL="bucket-owner-read")["UploadId"]
    upload["UploadId"] = his
    part = {"PartNumber": 1, "ETag": bob.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    for _ in range(2):
        bob.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    assert _read(ada, bucket, "u") == b"x"
    assert bob.get_object_acl(Bucket=bucket, Key="u")["Owner"]["ID"] == "bob-id"
    ada.abort_multipart_upload(Bucket=bucket, Key="u", UploadId=hers)


def test_others_delete_keys_but_no_versions(
    ada: Client, bob: Client, nobody: Client, bucket: str
) -> None:
    ada.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept = ada.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert _refused(bob.delete_object, Bucket=bucket, Key="k", VersionId=kept) == DENIED
    nobody.delete_object(Bucket=bucket, Key="k")
    doomed = {"Objects": [{"Key": "k", "VersionId": kept}, {"Key": "other"}]}
    answer = bob.delete_objects(Bucket=bucket, Delete=doomed)
    assert [(each["Key"], each["Code"]) for each in answer["Errors"]] == [("k", "AccessDenied")]
    assert [each["Key"] for each in answer["Deleted"]] == ["other"]
    markers = ada.list_object_versions(Bucket=bucket)["DeleteMarkers"]
    assert {each["Key"]: each["Owner"]["ID"] for each in markers} == {
        "k": "ada-id",
        "other": "bob-id",
    }
    assert _read(ada, bucket, VersionId=kept) == b"kept"


def test_lists_that_are_refused(ada: Client, bucket: str) -> None:
    put = {"Bucket": bucket, "Key": "k"}
    both = _refused(ada.put_object_acl, **put, ACL="private", GrantRead="id=bob-id")
    assert both == ("InvalidRequest", 400)
    assert _refused(ada.put_object_acl, **put) == ("MissingSecurityHeader", 400)
    unknown = _refused(ada.put_bucket_acl, Bucket=bucket, GrantRead="emailAddress=eve@example.com")
    assert unknown == ("UnresolvableGrantByEmailAddress", 400)
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "bob-id"}, "Permission": "READ"}
    policy = {"Grants": [grant] * 101, "Owner": {"ID": "ada-id"}}
    long = _refused(ada.put_object_acl, **put, AccessControlPolicy=policy)
    assert long == ("MalformedACLError", 400)
    policy = {"Grants": [grant], "Owner": {"ID": "bob-id"}}
    assert _refused(ada.put_object_acl, **put, AccessControlPolicy=policy) == DENIED
    assert len(ada.get_object_acl(**put)["Grants"]) == 1


def _post(server: server_process.ServerProcess, bucket: str, fields: dict[str, str]) -> int:
    boundary = uuid.uuid4().hex
    lines: list[str] = []
    for name, value in {**fields, "file": "content"}.items():
        kind = '; filename="f"' if name == "file" else ""
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"{kind}', ""]
        lines.append(value)
    body = "\r\n".join([*lines, f"--{boundary}--", ""]).encode()
    request = urllib.request.Request(
        f"{server.endpoint}/{bucket}",
        data=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


def test_a_form_that_nobody_signed_comes_into_a_public_bucket(
    server: server_process.ServerProcess, ada: Client, nobody: Client, bucket: str
) -> None:
    assert _post(server, bucket, {"key": "form"}) == 403
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    assert _post(server, bucket, {"key": "form", "acl": "public-read", "tagging": tags}) == 204
    assert _read(nobody, bucket, "form") == b"content"
    assert ada.get_object_acl(Bucket=bucket, Key="form")["Owner"]["ID"] == "ada-id"
    told = ada.get_object_tagging(Bucket=bucket, Key="form")["TagSet"]
    assert told == [{"Key": "a", "Value": "b"}]
    assert _post(server, bucket, {"key": "form", "policy": "eA=="}) == 400
    block = {"BlockPublicAcls": True}
    ada.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert _post(server, bucket, {"key": "f2", "acl": "public-read"}) == 403
    assert _post(server, bucket, {"key": "f2"}) == 204


def test_the_owner_that_is_expected_is_the_buckets(bob: Client, ada: Client, bucket: str) -> None:
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read")
    ada.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    bob.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="ada-id")
    wrong = {"Bucket": bucket, "ExpectedBucketOwner": "bob-id"}
    assert _refused(bob.list_objects_v2, **wrong) == DENIED
    own = f"{bucket[:40]}-own"
    bob.create_bucket(Bucket=own)
    copy = {"Bucket": own, "Key": "c", "CopySource": {"Bucket": bucket, "Key": "k"}}
    assert _refused(bob.copy_object, **copy, ExpectedSourceBucketOwner="bob-id") == DENIED
    bob.copy_object(**copy, ExpectedSourceBucketOwner="ada-id")


def test_users_come_and_go_and_lists_outlive_a_crash(tmp_path: pathlib.Path) -> None:
    users = tmp_path / "users.toml"
    _write_users(users, "ada")
    options = {"workers": "2", "users-file": str(users)}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        ada, eve, nobody = (_client(server, name) for name in ("ada", "eve", None))
        ada.create_bucket(Bucket="hers", ACL="public-read")
        ada.put_object(Bucket="hers", Key="k", Body=b"x", ACL="public-read")
        assert _refused(eve.list_buckets) == ("InvalidAccessKeyId", 403)
        _write_users(users, "eve")
        os.kill(server.pid, signal.SIGHUP)
        _wait_until(lambda: _all_workers_know(server, eve, log_lines=2))
        eve.list_objects_v2(Bucket="hers")
        assert _refused(ada.list_buckets) == ("InvalidAccessKeyId", 403)
        server.kill()
        shutil.rmtree(tmp_path / "node" / "index")
        server.start()
        assert _read(nobody, "hers") == b"x"
        assert _read(eve, "hers") == b"x"
        assert _refused(eve.put_object, Bucket="hers", Key="k", Body=b"y") == DENIED


def _wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def _all_workers_know(
    server: server_process.ServerProcess, client: Client, *, log_lines: int
) -> bool:
    """Whether each worker has said that it read the users again, and one lets a new one in."""
    if server.log_path.read_text().count("users loaded") < log_lines:
        return False
    client.list_buckets()
    return True


def test_a_wrong_users_file_refuses_the_start(tmp_path: pathlib.Path) -> None:
    users = tmp_path / "users.toml"
    users.write_text(json.dumps({}))
    users.chmod(0o600)
    options = {"workers": "1", "users-file": str(users)}
    server = server_process.couchestor(tmp_path / "node", options=options)
    with pytest.raises(RuntimeError, match="is not TOML"), server:
        pass
