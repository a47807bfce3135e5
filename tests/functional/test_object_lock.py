"""Object lock through the real daemon and boto3: who may do what, and nothing locked goes."""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest
import urllib3
from botocore.exceptions import ClientError
from tests.functional import daemon_process, several_users
from tests.functional.several_users import DENIED, client, refusal

from couchestor_bench import server_process

Client = Any
UNTIL: Final = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
LATER: Final = datetime.datetime(2041, 1, 1, tzinfo=datetime.UTC)
NO_LOCK: Final = ("NoSuchObjectLockConfiguration", 404)
MISSING: Final = ("InvalidRequest", 400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder = tmp_path_factory.mktemp("locks")
    several_users.write(folder / "users.toml", "ada", "bob")
    options = {
        "workers": "2",
        "users-file": str(folder / "users.toml"),
        "lifecycle-debug-day-seconds": "0.5",
        "lifecycle-interval-seconds": "1",
    }
    with daemon_process.running(folder / "node", options=options) as running:
        yield running


@pytest.fixture
def ada(server: server_process.ServerProcess) -> Client:
    """Whose bucket it is."""
    return client(server, "ada")


@pytest.fixture
def bob(server: server_process.ServerProcess) -> Client:
    return client(server, "bob")


@pytest.fixture
def bucket(ada: Client) -> str:
    name = f"b-{uuid.uuid4().hex}"
    ada.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def _retention(mode: str = "GOVERNANCE", until: datetime.datetime = UNTIL) -> dict[str, Any]:
    return {"Mode": mode, "RetainUntilDate": until}


def _put(ada: Client, bucket: str, **more: Any) -> dict[str, str]:
    """An object; what names its version."""
    answer = ada.put_object(Bucket=bucket, Key="k", Body=b"body", **more)
    return {"Bucket": bucket, "Key": "k", "VersionId": answer["VersionId"]}


def test_a_bucket_locks_what_says_nothing(ada: Client, bucket: str) -> None:
    assert ada.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    enabled: dict[str, Any] = {"ObjectLockEnabled": "Enabled"}
    found = ada.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert found == enabled
    default = {"DefaultRetention": {"Mode": "COMPLIANCE", "Years": 2}}
    ada.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={**enabled, "Rule": default}
    )
    found = ada.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert found == {**enabled, "Rule": default}
    place = _put(ada, bucket)
    headed = ada.head_object(**place)
    assert headed["ObjectLockMode"] == "COMPLIANCE"
    kept = headed["ObjectLockRetainUntilDate"] - headed["LastModified"]
    assert datetime.timedelta(days=729) < kept < datetime.timedelta(days=733)
    assert "ObjectLockLegalHoldStatus" not in headed
    own = ada.head_object(
        **_put(ada, bucket, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=UNTIL)
    )
    assert (own["ObjectLockMode"], own["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", UNTIL)
    assert refusal(ada.delete_object, **place, BypassGovernanceRetention=True) == DENIED


def test_made_again_a_bucket_is_as_it_is(ada: Client, bucket: str) -> None:
    ada.create_bucket(Bucket=bucket)
    ada.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    plain = f"{bucket[:40]}-plain"
    ada.create_bucket(Bucket=plain)
    exists = ("BucketAlreadyExists", 409)
    assert refusal(ada.create_bucket, Bucket=plain, ObjectLockEnabledForBucket=True) == exists


def test_copies_and_uploads_are_locked_as_they_say(ada: Client, bucket: str) -> None:
    lock = {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": UNTIL,
        "ObjectLockLegalHoldStatus": "ON",
    }
    source = _put(ada, bucket, **lock)
    copied = ada.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    plain = ada.head_object(Bucket=bucket, Key="copy", VersionId=copied["VersionId"])
    assert not lock.keys() & plain.keys()
    ada.copy_object(Bucket=bucket, Key="copy", CopySource=source, **lock)
    upload = ada.create_multipart_upload(Bucket=bucket, Key="parts", **lock)["UploadId"]
    parts = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = ada.upload_part(**parts, PartNumber=1, Body=b"part")["ETag"]
    ada.complete_multipart_upload(
        **parts, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    for key in ("k", "copy", "parts"):
        headed = ada.head_object(Bucket=bucket, Key=key)
        assert {name: headed[name] for name in lock} == lock
        denied = refusal(ada.delete_object, Bucket=bucket, Key=key, VersionId=headed["VersionId"])
        assert denied == DENIED


def test_a_form_locks_its_file(ada: Client, bucket: str) -> None:
    fields = {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2040-01-01T00:00:00Z",
    }
    form = ada.generate_presigned_post(
        bucket, "k", Fields=fields, Conditions=[{name: text} for name, text in fields.items()]
    )
    content = [*form["fields"].items(), ("file", ("k", b"body"))]
    answer = urllib3.request("POST", form["url"], fields=content)
    assert answer.status == 204
    headed = ada.head_object(Bucket=bucket, Key="k")
    assert (headed["ObjectLockMode"], headed["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", UNTIL)


def test_nothing_is_locked_where_the_bucket_cannot(ada: Client, bucket: str) -> None:
    plain = f"{bucket[:40]}-plain"
    ada.create_bucket(Bucket=plain)
    place = {"Bucket": plain, "Key": "k"}
    assert refusal(ada.put_object, **place, ObjectLockLegalHoldStatus="ON") == MISSING
    ada.put_object(**place, Body=b"body")
    assert refusal(ada.put_object_legal_hold, **place, LegalHold={"Status": "ON"}) == MISSING
    assert refusal(ada.put_object_retention, **place, Retention=_retention()) == MISSING
    assert refusal(ada.get_object_retention, **place) == MISSING
    assert refusal(ada.get_object_legal_hold, **place) == MISSING
    ada.put_object_tagging(**place, Tagging={"TagSet": []})
    place["Bucket"] = bucket
    ada.put_object(**place, Body=b"body")
    assert refusal(ada.get_object_retention, **place) == NO_LOCK
    assert refusal(ada.get_object_legal_hold, **place) == NO_LOCK


def test_retention_is_lengthened_by_anybody_and_ended_by_nobody_in_compliance(
    ada: Client, bucket: str
) -> None:
    place = _put(ada, bucket)
    ada.put_object_retention(**place, Retention=_retention("COMPLIANCE"))
    ada.put_object_retention(**place, Retention=_retention("COMPLIANCE", LATER))
    for retention in (_retention("COMPLIANCE"), _retention("GOVERNANCE", LATER), {}):
        denied = refusal(
            ada.put_object_retention,
            **place,
            Retention=retention,
            BypassGovernanceRetention=True,
        )
        assert denied == DENIED
    assert ada.get_object_retention(**place)["Retention"] == _retention("COMPLIANCE", LATER)


def test_governance_is_bypassed_by_whoever_says_so_and_may(
    ada: Client, bob: Client, bucket: str
) -> None:
    place = _put(ada, bucket, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=UNTIL)

    def allow(*actions: str) -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam:::user/bob-id"},
            "Action": [f"s3:{action}" for action in actions],
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        ada.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    bypass = {"BypassGovernanceRetention": True}
    usual = ("DeleteObjectVersion", "PutObjectRetention", "GetObject", "GetObjectVersion")
    allow(*usual)
    headed = bob.head_object(**place)
    assert "ObjectLockMode" not in headed
    allow(*usual, "GetObjectRetention")
    assert bob.head_object(**place)["ObjectLockMode"] == "GOVERNANCE"
    assert refusal(bob.delete_object, **place) == DENIED
    assert refusal(bob.delete_object, **place, **bypass) == DENIED
    assert refusal(bob.put_object_retention, **place, Retention={}, **bypass) == DENIED
    doomed = {"Objects": [{"Key": "k", "VersionId": place["VersionId"]}]}
    answer = bob.delete_objects(Bucket=bucket, Delete=doomed, **bypass)
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    assert refusal(ada.delete_object, **place) == DENIED
    allow(*usual, "BypassGovernanceRetention")
    assert refusal(bob.delete_object, **place) == DENIED
    bob.put_object_retention(**place, Retention={}, **bypass)
    assert refusal(ada.get_object_retention, **place) == NO_LOCK
    ada.put_object_retention(**place, Retention=_retention())
    bob.delete_object(**place, **bypass)
    assert refusal(ada.head_object, **place)[1] == 404


def test_a_policy_can_bound_how_long_is_retained(ada: Client, bob: Client, bucket: str) -> None:
    place = _put(ada, bucket)
    principal = {"AWS": "arn:aws:iam:::user/bob-id"}
    resource = f"arn:aws:s3:::{bucket}/*"
    statements = [
        {
            "Effect": "Allow",
            "Principal": principal,
            "Action": "s3:PutObjectRetention",
            "Resource": resource,
        },
        {
            "Effect": "Deny",
            "Principal": principal,
            "Action": "s3:PutObjectRetention",
            "Resource": resource,
            "Condition": {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "10"}},
        },
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    ada.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    now = datetime.datetime.now(datetime.UTC)
    long = _retention(until=now + datetime.timedelta(days=11))
    short = _retention(until=now + datetime.timedelta(days=9))
    assert refusal(bob.put_object_retention, **place, Retention=long) == DENIED
    bob.put_object_retention(**place, Retention=short)


def test_others_who_may_write_may_not_lock(ada: Client, bob: Client, bucket: str) -> None:
    ada.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    ada.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    bob.put_object(Bucket=bucket, Key="his", Body=b"x")
    hold = {"Bucket": bucket, "Key": "his", "ObjectLockLegalHoldStatus": "ON"}
    assert refusal(bob.put_object, **hold) == DENIED
    retained = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": UNTIL}
    assert refusal(bob.put_object, Bucket=bucket, Key="his", **retained) == DENIED
    ada.put_object(**hold)


def test_a_hold_and_a_removal_never_both_succeed(
    server: server_process.ServerProcess, ada: Client, bucket: str
) -> None:
    clients = [client(server, "ada") for _ in range(2)]
    held = gone = 0
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for _ in range(60):
            place = _put(ada, bucket)
            calls = [
                threads.submit(
                    clients[0].put_object_legal_hold, **place, LegalHold={"Status": "ON"}
                ),
                threads.submit(clients[1].delete_object, **place),
            ]
            failures = [call.exception() for call in calls]
            assert sum(failure is None for failure in failures) == 1, failures
            if failures[0] is None:
                held += 1
                assert ada.get_object_legal_hold(**place)["LegalHold"]["Status"] == "ON"
                assert isinstance(failures[1], ClientError)
                assert failures[1].response["Error"]["Code"] == "AccessDenied"
            else:
                gone += 1
                assert isinstance(failures[0], ClientError)
                assert failures[0].response["Error"]["Code"] == "NoSuchVersion"
    assert held + gone == 60


def test_rules_of_the_lifecycle_leave_what_is_locked(ada: Client, bucket: str) -> None:
    locked = _put(ada, bucket, ObjectLockLegalHoldStatus="ON")["VersionId"]
    _put(ada, bucket)
    current = _put(ada, bucket)["VersionId"]
    rule = {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    ada.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})

    def left() -> list[str]:
        page = ada.list_object_versions(Bucket=bucket)
        return [each["VersionId"] for each in page["Versions"]]

    daemon_process.until(lambda: len(left()) == 2)
    assert left() == [current, locked]
    ada.put_object_legal_hold(Bucket=bucket, Key="k", VersionId=locked, LegalHold={"Status": "OFF"})
    daemon_process.until(lambda: left() == [current])


def test_locks_and_rules_outlive_a_node_that_is_killed_and_an_index_that_is_lost(
    tmp_path: pathlib.Path,
) -> None:
    several_users.write(tmp_path / "users.toml", "ada")
    options = {"workers": "1", "users-file": str(tmp_path / "users.toml")}
    default = {"Mode": "COMPLIANCE", "Days": 3}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": default}}
    rule = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 3}}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        ada = client(server, "ada")
        ada.create_bucket(Bucket="kept", ObjectLockEnabledForBucket=True)
        held = _put(ada, "kept", ObjectLockLegalHoldStatus="ON")
        ada.put_object_lock_configuration(Bucket="kept", ObjectLockConfiguration=configuration)
        retained = _put(ada, "kept")
        ada.put_bucket_lifecycle_configuration(
            Bucket="kept", LifecycleConfiguration={"Rules": [rule]}
        )
        before = [ada.head_object(**place) for place in (held, retained)]
        server.kill()
        shutil.rmtree(tmp_path / "node" / "index")
        server.start()
        for place, headed in zip((held, retained), before, strict=True):
            found = ada.head_object(**place)
            for name in (
                "ObjectLockMode",
                "ObjectLockRetainUntilDate",
                "ObjectLockLegalHoldStatus",
            ):
                assert found.get(name) == headed.get(name)
            assert refusal(ada.delete_object, **place, BypassGovernanceRetention=True) == DENIED
        found = ada.get_object_lock_configuration(Bucket="kept")["ObjectLockConfiguration"]
        assert found == configuration
        assert ada.get_bucket_lifecycle_configuration(Bucket="kept")["Rules"] == [rule]
