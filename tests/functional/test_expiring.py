"""Lifecycle rules that take effect while clients write: the real daemon, with days of a second."""

from __future__ import annotations

import pathlib
import re
import threading
import time
import typing
import urllib.request
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process

_DAY_SECONDS: typing.Final = 2.0

Client = typing.Any


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("expiring") / "node"
    options = {
        "workers": "2",
        "lifecycle-debug-day-seconds": f"{_DAY_SECONDS:g}",
        "lifecycle-interval-seconds": "1",
    }
    with daemon_process.running(folder, options=options) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: server_process.ServerProcess) -> Client:
    return daemon_process.boto_client(server)


def _rule(**more: typing.Any) -> dict[str, typing.Any]:
    return {"ID": "r", "Status": "Enabled", "Filter": {}, **more}


def _put(client: Client, bucket: str, *rules: dict[str, typing.Any]) -> None:
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


def _keys(client: Client, bucket: str) -> list[str]:
    page = client.list_objects_v2(Bucket=bucket)
    return [each["Key"] for each in page.get("Contents", [])]


def test_whoever_starts_a_node_with_short_days_is_warned(
    server: server_process.ServerProcess,
) -> None:
    assert "a day of lifecycle rules lasts 2 seconds" in server.log_path.read_text()


def test_what_is_written_again_all_the_time_is_never_lost(
    server: server_process.ServerProcess, client: Client
) -> None:
    bucket = "busy"
    client.create_bucket(Bucket=bucket)
    for number in range(40):
        client.put_object(Bucket=bucket, Key=f"cold/{number:02}", Body=b"x" * 100)
    client.put_object(Bucket=bucket, Key="large", Body=b"y" * (1 << 20))
    client.put_object(Bucket=bucket, Key="kept", Body=b"z", Tagging="keep=yes")
    client.put_object(Bucket=bucket, Key="hot/0", Body=b"0")
    done = threading.Event()
    wrong: list[str] = []

    def write() -> None:
        own = daemon_process.boto_client(server)
        number = 0
        try:
            while not done.is_set():
                number += 1
                body = str(number).encode()
                begun = time.monotonic()
                own.put_object(Bucket=bucket, Key="hot/0", Body=body)
                try:
                    read = own.get_object(Bucket=bucket, Key="hot/0")["Body"].read()
                except own.exceptions.NoSuchKey:
                    # A machine that stands still for a day makes it due.
                    if time.monotonic() - begun < _DAY_SECONDS:
                        wrong.append(f"nothing for {body!r}")
                    continue
                if read != body:
                    wrong.append(f"{read!r} for {body!r}")
        except Exception as exc:
            wrong.append(repr(exc))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        _put(
            client,
            bucket,
            _rule(ID="cold", Filter={"Prefix": "cold/"}, Expiration={"Days": 1}),
            _rule(ID="hot", Filter={"Prefix": "hot/"}, Expiration={"Days": 1}),
            _rule(ID="large", Filter={"ObjectSizeGreaterThan": 1000}, Expiration={"Days": 2}),
        )
        daemon_process.until(lambda: _keys(client, bucket) == ["hot/0", "kept"])
    finally:
        done.set()
        writer.join()
    assert not wrong
    daemon_process.until(lambda: _keys(client, bucket) == ["kept"])
    page = server.command[server.command.index("--metrics-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/metrics", timeout=5) as answer:
        figures = answer.read().decode()
    removed = re.search(
        r'^couchestor_lifecycle_actions_total{action="removed"} (\S+)$', figures, re.M
    )
    assert removed is not None
    assert float(removed[1]) >= 42
    assert "couchestor_lifecycle_ended_timestamp_seconds" in figures


def test_versions_markers_and_uploads_come_to_their_end(client: Client) -> None:
    bucket = "versioned"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(4):
        client.put_object(Bucket=bucket, Key="many", Body=str(number).encode())
    client.put_object(Bucket=bucket, Key="gone", Body=b"x")
    client.delete_object(Bucket=bucket, Key="gone")
    client.create_multipart_upload(Bucket=bucket, Key="parts")
    kept = client.create_multipart_upload(Bucket=bucket, Key="young")["UploadId"]
    _put(
        client,
        bucket,
        _rule(
            ID="old",
            NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 1},
        ),
        _rule(
            ID="gone",
            Filter={"Prefix": "gone"},
            NoncurrentVersionExpiration={"NoncurrentDays": 1},
            Expiration={"ExpiredObjectDeleteMarker": True},
        ),
        _rule(
            ID="parts",
            Filter={"Prefix": "parts"},
            AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
        ),
    )

    def is_done() -> bool:
        page = client.list_object_versions(Bucket=bucket)
        uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return (
            [each["Key"] for each in page.get("Versions", [])] == ["many", "many"]
            and "DeleteMarkers" not in page
            and [each["UploadId"] for each in uploads] == [kept]
        )

    daemon_process.until(is_done)
    assert client.get_object(Bucket=bucket, Key="many")["Body"].read() == b"3"
    _put(client, bucket, _rule(Filter={"Prefix": "many"}, Expiration={"Days": 1}))
    daemon_process.until(
        lambda: len(client.list_object_versions(Bucket=bucket).get("DeleteMarkers", [])) == 1
    )
    assert _keys(client, bucket) == []
    assert len(client.list_object_versions(Bucket=bucket)["Versions"]) == 2
