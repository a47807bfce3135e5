"""Lifecycle configurations through the real daemon and boto3."""

from __future__ import annotations

import datetime
import email.utils
import pathlib
import re
import typing
from collections.abc import Iterator

import botocore.exceptions
import pytest
from tests.functional import daemon_process

_BUCKET: typing.Final = "aging"

Client = typing.Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: pathlib.Path = tmp_path_factory.mktemp("lifecycle") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as server:
        yield daemon_process.boto_client(server)


@pytest.fixture
def client(made: Client) -> Iterator[Client]:
    made.create_bucket(Bucket=_BUCKET)
    yield made
    for each in made.list_objects_v2(Bucket=_BUCKET).get("Contents", []):
        made.delete_object(Bucket=_BUCKET, Key=each["Key"])
    made.delete_bucket(Bucket=_BUCKET)


def _put(client: Client, *rules: dict[str, typing.Any], **more: str) -> dict[str, typing.Any]:
    answer: dict[str, typing.Any] = client.put_bucket_lifecycle_configuration(
        Bucket=_BUCKET, LifecycleConfiguration={"Rules": list(rules)}, **more
    )
    return answer


def _rule(**more: typing.Any) -> dict[str, typing.Any]:
    return {"ID": "r", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 3}, **more}


def _code(call: typing.Any, **arguments: typing.Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as failure:
        call(**arguments)
    return str(failure.value.response["Error"]["Code"])


def test_rules_are_put_given_back_replaced_and_removed(client: Client) -> None:
    missing = "NoSuchLifecycleConfiguration"
    assert _code(client.get_bucket_lifecycle_configuration, Bucket=_BUCKET) == missing
    client.delete_bucket_lifecycle(Bucket=_BUCKET)
    rules = [
        _rule(
            ID="a b",
            Filter={
                "And": {
                    "Prefix": "logs/",
                    "Tags": [{"Key": "k", "Value": "v"}],
                    "ObjectSizeGreaterThan": 1,
                }
            },
        ),
        _rule(
            ID="noncurrent",
            Status="Disabled",
            Filter={"Prefix": ""},
            NoncurrentVersionExpiration={"NoncurrentDays": 5, "NewerNoncurrentVersions": 2},
            AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7},
        ),
    ]
    answer = _put(client, *rules)
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    found = client.get_bucket_lifecycle_configuration(Bucket=_BUCKET)
    assert found["Rules"] == rules
    minimum = "varies_by_storage_class"
    _put(client, _rule(), TransitionDefaultMinimumObjectSize=minimum)
    found = client.get_bucket_lifecycle_configuration(Bucket=_BUCKET)
    assert (found["Rules"], found["TransitionDefaultMinimumObjectSize"]) == ([_rule()], minimum)
    client.delete_bucket_lifecycle(Bucket=_BUCKET)
    assert _code(client.get_bucket_lifecycle_configuration, Bucket=_BUCKET) == missing


def test_a_rule_that_nothing_here_can_follow_is_refused_and_changes_nothing(client: Client) -> None:
    _put(client, _rule())
    moving = {
        "ID": "m",
        "Status": "Enabled",
        "Filter": {},
        "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
    }
    configuration = {"Rules": [moving]}
    assert (
        _code(
            client.put_bucket_lifecycle_configuration,
            Bucket=_BUCKET,
            LifecycleConfiguration=configuration,
        )
        == "InvalidStorageClass"
    )
    assert client.get_bucket_lifecycle_configuration(Bucket=_BUCKET)["Rules"] == [_rule()]


def test_what_will_expire_tells_when_and_by_which_rule(client: Client) -> None:
    before = client.put_object(Bucket=_BUCKET, Key="tmp/k", Body=b"body")
    assert "Expiration" not in before
    _put(client, _rule(ID="a/b ü", Filter={"Prefix": "tmp/"}), _rule(ID="no", Status="Disabled"))
    place = {"Bucket": _BUCKET, "Key": "tmp/k"}
    written = client.put_object(**place, Body=b"body")
    headed, read = client.head_object(**place), client.get_object(**place)
    read["Body"].close()
    copied = client.copy_object(Bucket=_BUCKET, Key="tmp/copy", CopySource=place)
    upload = client.create_multipart_upload(Bucket=_BUCKET, Key="tmp/parts")["UploadId"]
    parts = {"Bucket": _BUCKET, "Key": "tmp/parts", "UploadId": upload}
    etag = client.upload_part(**parts, PartNumber=1, Body=b"part")["ETag"]
    completed = client.complete_multipart_upload(
        **parts, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    for answer in (written, headed, read, copied, completed):
        found = re.fullmatch(r'expiry-date="(.+)", rule-id="(.+)"', answer["Expiration"])
        assert found is not None
        assert found[2] == "a/b%20%C3%BC"
        expiry = email.utils.parsedate_to_datetime(found[1])
        left = expiry - headed["LastModified"]
        assert datetime.timedelta(days=3) <= left <= datetime.timedelta(days=4, seconds=60)
        assert (expiry.hour, expiry.minute, expiry.second) == (0, 0, 0)
    assert "Expiration" not in client.put_object(Bucket=_BUCKET, Key="other", Body=b"body")
