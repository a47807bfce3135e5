"""Logs of buckets through the real daemon: configured by boto3, read as objects."""

from __future__ import annotations

import pathlib
import shlex
import time
import typing
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError
from tests.functional import daemon_process

from couchestor_bench import server_process

Client = typing.Any
_SECONDS_MAX: typing.Final = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("logs") / "node"
    options = {"workers": "2", "bucket-log-seconds": "0.2"}
    with daemon_process.running(folder, options=options) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: server_process.ServerProcess) -> Client:
    return daemon_process.boto_client(server, signature_version="s3v4")


@pytest.fixture
def buckets(client: Client) -> tuple[str, str]:
    """One that is logged, and the one its log goes to."""
    names = [f"{kind}-{uuid.uuid4().hex}" for kind in ("source", "logs")]
    for name in names:
        client.create_bucket(Bucket=name)
    return names[0], names[1]


def _enable(client: Client, source: str, target: str, **more: typing.Any) -> dict[str, typing.Any]:
    enabled = {"TargetBucket": target, "TargetPrefix": "log/", **more}
    client.put_bucket_logging(Bucket=source, BucketLoggingStatus={"LoggingEnabled": enabled})
    return enabled


def _lines(client: Client, target: str) -> list[list[str]]:
    """The fields of every line."""
    listed = client.list_objects_v2(Bucket=target).get("Contents", ())
    texts = [
        client.get_object(Bucket=target, Key=each["Key"])["Body"].read().decode("ascii")
        for each in listed
    ]
    lines = [line for text in texts for line in text.splitlines()]
    return [shlex.split(line.replace("[", '"').replace("]", '"')) for line in lines]


def _wait_for(
    client: Client, target: str, is_enough: Callable[[list[list[str]]], bool]
) -> list[list[str]]:
    ends = time.monotonic() + _SECONDS_MAX
    while not is_enough(lines := _lines(client, target)):
        assert time.monotonic() < ends, lines
    return lines


def test_where_a_log_goes_is_put_read_and_removed(client: Client, buckets: tuple[str, str]) -> None:
    source, target = buckets
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=source)
    owner = client.list_buckets()["Owner"]
    simple: dict[str, typing.Any] = {"TargetObjectKeyFormat": {"SimplePrefix": {}}}
    by_day = {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    grantee = {"Type": "CanonicalUser", "ID": owner["ID"], "DisplayName": owner["DisplayName"]}
    for more, told in (
        ({}, simple),
        ({"TargetObjectKeyFormat": by_day}, {}),
        ({"TargetGrants": [{"Grantee": grantee, "Permission": "READ"}]}, simple),
    ):
        enabled = _enable(client, source, target, **more)
        found = client.get_bucket_logging(Bucket=source)["LoggingEnabled"]
        assert found == {**enabled, **told}
    client.put_bucket_logging(Bucket=source, BucketLoggingStatus={})
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=source)


def test_targets_that_are_refused(client: Client, buckets: tuple[str, str]) -> None:
    source, target = buckets

    def code(of: str, to: str) -> str:
        with pytest.raises(ClientError) as caught:
            _enable(client, of, to)
        return str(caught.value.response["Error"]["Code"])

    assert code(source, "none-such-bucket") == "InvalidTargetBucketForLogging"
    assert code(source, source) == "InvalidArgument"
    _enable(client, source, target)
    # What is logged itself takes no logs: so no log is ever about logs.
    assert code(target, source) == "InvalidArgument"


def test_requests_are_logged(
    server: server_process.ServerProcess, client: Client, buckets: tuple[str, str]
) -> None:
    source, target = buckets
    _enable(client, source, target)
    put = client.put_object(Bucket=source, Key="a b", Body=b"12345")
    client.get_object(Bucket=source, Key="a b", Range="bytes=0-2")["Body"].read()
    with pytest.raises(ClientError):
        client.get_object(Bucket=source, Key="none")
    url = client.generate_presigned_url("get_object", Params={"Bucket": source, "Key": "a b"})
    urllib.request.urlopen(url, timeout=10).close()
    for path in (f"/{source}/secret", f"/{source}/a?X-Amz-Signature=0&X-Amz-Algorithm=x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.endpoint}{path}", timeout=10)
        caught.value.close()
    lines = _wait_for(client, target, lambda found: len(found) >= 6)
    assert {len(fields) for fields in lines} == {26}
    by_operation = {(fields[6], fields[7], fields[9]): fields for fields in lines}
    assert set(by_operation) == {
        ("REST.PUT.OBJECT", "a%20b", "200"),
        ("REST.GET.OBJECT", "a%20b", "206"),
        ("REST.GET.OBJECT", "a%20b", "200"),
        ("REST.GET.OBJECT", "none", "404"),
        ("REST.GET.OBJECT", "secret", "403"),
        ("REST.GET.UNKNOWN", "a", "400"),
    }
    owner = client.list_buckets()["Owner"]["ID"]
    written = by_operation["REST.PUT.OBJECT", "a%20b", "200"]
    assert written[:2] == [owner, source]
    assert written[3:6] == [
        "127.0.0.1",
        owner,
        put["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"],
    ]
    assert (written[12], written[19], written[21]) == ("5", "SigV4", "AuthHeader")
    read = by_operation["REST.GET.OBJECT", "a%20b", "206"]
    assert read[10:13] == ["-", "3", "5"]
    assert by_operation["REST.GET.OBJECT", "a%20b", "200"][21] == "QueryString"
    assert by_operation["REST.GET.OBJECT", "none", "404"][10] == "NoSuchKey"
    nobody = by_operation["REST.GET.OBJECT", "secret", "403"]
    assert (nobody[4], nobody[10], nobody[19]) == ("-", "AccessDenied", "-")


def test_lines_that_are_held_are_written_before_a_stop(tmp_path: pathlib.Path) -> None:
    options = {"workers": "1", "bucket-log-seconds": "3600"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        for name in ("source", "target"):
            client.create_bucket(Bucket=name)
        by_day = {"PartitionedPrefix": {"PartitionDateSource": "DeliveryTime"}}
        _enable(client, "source", "target", TargetObjectKeyFormat=by_day)
        client.put_object(Bucket="source", Key="k", Body=b"")
        assert _lines(client, "target") == []
        assert server.terminate() == 0
        server.restart()
        (listed,) = client.list_objects_v2(Bucket="target")["Contents"]
        owner = client.list_buckets()["Owner"]["ID"]
        assert listed["Key"].startswith(f"log/{owner}/us-east-1/source/20")
        assert "REST.PUT.OBJECT" in {fields[6] for fields in _lines(client, "target")}
