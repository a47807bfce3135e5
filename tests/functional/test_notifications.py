"""Notices of changes through the real daemon to a real web server."""

from __future__ import annotations

import pathlib
import shutil
import time
import typing
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from tests.functional import daemon_process, node_command, webhook_server

from couchestor_bench import server_process

_ARN: typing.Final = "arn:couchestor:webhook:::hook"
_ALL: typing.Final = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*"]

Client = typing.Any


def _configure(client: Client, bucket: str, **rule: typing.Any) -> None:
    told = {"Id": "all", "QueueArn": _ARN, "Events": [*_ALL, "s3:ObjectAcl:Put"], **rule}
    client.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [told]}
    )


def _options(hook: webhook_server.WebhookServer, **more: str) -> dict[str, str]:
    return {"workers": "2", "notification-targets": f"hook={hook.url}", **more}


@pytest.fixture(scope="module")
def hook() -> Iterator[webhook_server.WebhookServer]:
    server = webhook_server.WebhookServer()
    with server.listening():
        yield server


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, hook: webhook_server.WebhookServer
) -> Iterator[server_process.ServerProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("notices") / "node"
    with daemon_process.running(folder, options=_options(hook)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: server_process.ServerProcess) -> Client:
    return daemon_process.boto_client(server)


@pytest.fixture
def bucket(client: Client) -> str:
    name = f"b-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return name


def test_a_configuration_is_put_read_and_removed(client: Client, bucket: str) -> None:
    def read() -> dict[str, typing.Any]:
        answer = client.get_bucket_notification_configuration(Bucket=bucket)
        return {name: found for name, found in answer.items() if name != "ResponseMetadata"}

    assert read() == {}
    events, filters = ["s3:ObjectCreated:*"], [{"Name": "prefix", "Value": "a"}]
    configuration = {
        "QueueConfigurations": [{"Id": "q", "QueueArn": _ARN, "Events": events}],
        "TopicConfigurations": [
            {
                "Id": "t",
                "TopicArn": "arn:aws:sns:us-east-1:123456789012:hook",
                "Events": events,
                "Filter": {"Key": {"FilterRules": filters}},
            }
        ],
    }
    client.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=configuration, SkipDestinationValidation=True
    )
    assert read() == configuration
    with pytest.raises(ClientError, match="Unable to validate the following destination"):
        _configure(client, bucket, QueueArn="arn:couchestor:webhook:::nobody")
    assert read() == configuration
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert read() == {}


def test_each_change_is_told_of(
    client: Client, hook: webhook_server.WebhookServer, bucket: str
) -> None:
    _configure(client, bucket)
    made = client.put_object(Bucket=bucket, Key="a b", Body=b"abc")
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a b"})
    upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = client.upload_part(
        Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"whole"
    )
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    for _ in range(2):
        client.complete_multipart_upload(
            Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts
        )
    form = client.generate_presigned_post(bucket, "form")
    boundary = "x" * 20
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form["fields"].items()
    )
    body = (
        f'{fields}--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        f"f\r\n--{boundary}--\r\n"
    )
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(form["url"], data=body.encode(), headers=kind, method="POST")
    urllib.request.urlopen(request, timeout=10).close()
    client.put_object_tagging(Bucket=bucket, Key="copy", Tagging={"TagSet": []})
    client.delete_object_tagging(Bucket=bucket, Key="copy")
    client.put_object_acl(Bucket=bucket, Key="copy", ACL="private")
    client.delete_object(Bucket=bucket, Key="none")
    client.delete_object(Bucket=bucket, Key="copy")
    doomed = [{"Key": "parts"}, {"Key": "form"}, {"Key": "none"}]
    client.delete_objects(Bucket=bucket, Delete={"Objects": doomed})
    client.put_object(Bucket=bucket, Key="last", Body=b"")
    records = hook.wait_for_count(bucket, 11)
    assert records[-1]["s3"]["object"]["key"] == "last"
    assert [(each["eventName"], each["s3"]["object"]["key"]) for each in records[:-1]] == [
        ("ObjectCreated:Put", "a+b"),
        ("ObjectCreated:Copy", "copy"),
        ("ObjectCreated:CompleteMultipartUpload", "parts"),
        ("ObjectCreated:Post", "form"),
        ("ObjectTagging:Put", "copy"),
        ("ObjectTagging:Delete", "copy"),
        ("ObjectAcl:Put", "copy"),
        ("ObjectRemoved:Delete", "copy"),
        ("ObjectRemoved:Delete", "parts"),
        ("ObjectRemoved:Delete", "form"),
    ]
    first = records[0]
    changed = first["s3"]["object"]
    assert (changed["size"], f'"{changed["eTag"]}"') == (3, made["ETag"])
    assert "versionId" not in changed
    request_id = made["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]
    assert first["responseElements"]["x-amz-request-id"] == request_id
    assert first["requestParameters"] == {"sourceIPAddress": "127.0.0.1"}
    assert first["s3"]["configurationId"] == "all"
    owner = client.list_buckets()["Owner"]["ID"]
    assert first["s3"]["bucket"]["ownerIdentity"] == {"principalId": owner}
    assert hook.headers[-1]["Content-Type"] == "application/json"


def test_markers_and_versions_are_told_apart(
    client: Client, hook: webhook_server.WebhookServer, bucket: str
) -> None:
    _configure(client, bucket, Filter={"Key": {"FilterRules": [{"Name": "suffix", "Value": "k"}]}})
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket=bucket, Key="k", Body=b"")["VersionId"]
    client.put_object(Bucket=bucket, Key="not told of", Body=b"")
    marker = client.delete_object(Bucket=bucket, Key="k")["VersionId"]
    for each in (marker, version):
        client.delete_object(Bucket=bucket, Key="k", VersionId=each)
    client.put_object(Bucket=bucket, Key="last-k", Body=b"")
    records = hook.wait_for_count(bucket, 5)
    assert records[-1]["s3"]["object"]["key"] == "last-k"
    assert [(each["eventName"], each["s3"]["object"]["versionId"]) for each in records[:-1]] == [
        ("ObjectCreated:Put", version),
        ("ObjectRemoved:DeleteMarkerCreated", marker),
        ("ObjectRemoved:Delete", marker),
        ("ObjectRemoved:Delete", version),
    ]


def _metrics(server: server_process.ServerProcess) -> dict[str, float]:
    port = server.command[server.command.index("--metrics-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("couchestor_notices"))
    return {name.partition("{")[0]: float(value) for name, _, value in pairs}


def test_nothing_is_lost_by_a_crash_between_commit_and_delivery(tmp_path: pathlib.Path) -> None:
    hook = webhook_server.WebhookServer()
    folder = tmp_path / "node"
    with daemon_process.running(folder, options=_options(hook)) as server:
        client = daemon_process.boto_client(server)
        client.create_bucket(Bucket="told")
        _configure(client, "told")
        hook.status = 503
        keys = [f"k{number:02}" for number in range(40)]
        with hook.listening():
            for key in keys[:20]:
                client.put_object(Bucket="told", Key=key, Body=key.encode())
            hook.wait_for_attempts(3)
        for key in keys[20:]:
            client.put_object(Bucket="told", Key=key, Body=key.encode())
        client.delete_object(Bucket="told", Key=keys[0])
        server.kill()
        # The queue is rebuilt from the log like anything else.
        shutil.rmtree(folder / "index")
        hook.status = 200
        server.start()
        with hook.listening():
            records = hook.wait_for_count("told", len(keys) + 1)
            assert [(each["eventName"], each["s3"]["object"]["key"]) for each in records] == [
                *(("ObjectCreated:Put", key) for key in keys),
                ("ObjectRemoved:Delete", keys[0]),
            ]
            client.put_object(Bucket="told", Key="after", Body=b"")
            hook.wait_for({"after"})
        found = _metrics(server)
        assert found["couchestor_notices_lost"] == 0
        assert found["couchestor_notices_delivered_total"] > 0
        assert server.log_path.read_text("utf-8").count("target hook of notices takes none") <= 3
        assert server.terminate() == 0
        done = node_command.run("check", data_dir=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_beyond_what_is_kept_writes_go_on_and_losses_are_counted(tmp_path: pathlib.Path) -> None:
    hook = webhook_server.WebhookServer()
    options = _options(hook, **{"notification-queue-max": "3"})
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        client.create_bucket(Bucket="told")
        _configure(client, "told")
        for number in range(9):
            client.put_object(Bucket="told", Key=f"k{number}", Body=b"")
        with hook.listening():
            hook.wait_for({"k0", "k1", "k2"})
            # Taken is not yet removed.
            ends = time.monotonic() + 30.0
            while _metrics(server)["couchestor_notices_waiting"]:
                assert time.monotonic() < ends, server.log_tail()
            client.put_object(Bucket="told", Key="later", Body=b"")
            records = hook.wait_for({"later"})
        told = {each["s3"]["object"]["key"] for each in records}
        assert told == {"k0", "k1", "k2", "later"}
        assert _metrics(server)["couchestor_notices_lost"] == 6


def test_only_the_owner_configures(server: server_process.ServerProcess, bucket: str) -> None:
    for method in ("GET", "PUT"):
        request = urllib.request.Request(
            f"{server.endpoint}/{bucket}?notification", method=method, data=b"x"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as failure:
            assert failure.code == 403
