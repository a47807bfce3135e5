"""A store without room, or without enough devices: reads and deletes go on, writes say why not."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import shutil
import typing

import botocore.exceptions
import pytest
from tests.functional import daemon_process, mounted_device, node_command

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_SMALL_STORE: typing.Final = {
    "device-capacity-bytes": "24MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "1MiB",
    "workers": "2",
    "room-wait-seconds": "1",
}
_PUTS_MAX: typing.Final = 2000

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our devices, our limits")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("size_bytes", [48 * _KIB, 3 * _MIB + 5], ids=["small", "striped"])
@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_a_full_store_serves_reads_and_deletes_also_after_a_restart(
    tmp_path: pathlib.Path, size_bytes: int, stop: str
) -> None:
    with daemon_process.running(tmp_path / "node", options=_SMALL_STORE) as server:
        client = daemon_process.boto_client(server)
        upload = client.create_multipart_upload(Bucket=daemon_process.BUCKET, Key="unfinished")
        objects, error = _fill(server, size_bytes)
        assert error["Error"]["Code"] == "InsufficientStorage", error
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 507
        assert "no space left" in error["Error"]["Message"]
        assert len(objects) * size_bytes > 10 * _MIB
        _verify(server, objects)
        _delete_some(server, objects, 3)
        client.abort_multipart_upload(
            Bucket=daemon_process.BUCKET, Key="unfinished", UploadId=upload["UploadId"]
        )
        server.terminate() if stop == "terminate" else server.kill()
        server.restart()
        _verify(server, objects)
        _delete_some(server, objects, 3)
        # What was deleted has given room back.
        again, error = _fill(server, size_bytes)
        assert error["Error"]["Code"] == "InsufficientStorage", error
        objects |= again
        _verify(server, objects)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("lose_index", [False, True], ids=["index kept", "index lost"])
def test_a_start_with_too_few_devices_serves_reads_and_answers_writes_503(
    tmp_path: pathlib.Path, lose_index: bool
) -> None:
    devices = [tmp_path / f"disk{number}" for number in range(3)]
    options = {"devices": ",".join(map(str, devices)), "data-shards": "1", "parity-shards": "2"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        objects = {}
        for number, size in enumerate((10, 4 * _KIB, 300 * _KIB, 5 * _MIB, 100)):
            objects[f"k{number}"] = random.Random(number).randbytes(size)
            client.put_object(
                Bucket=daemon_process.BUCKET, Key=f"k{number}", Body=objects[f"k{number}"]
            )
        server.terminate()
        away = devices[0].with_name("away")
        devices[0].rename(away)
        if lose_index:
            shutil.rmtree(server.data_dir / "index")
        server.restart()
        _verify(server, objects)
        for size in (10, 1 * _MIB):
            with pytest.raises(botocore.exceptions.ClientError) as caught:
                client.put_object(Bucket=daemon_process.BUCKET, Key="new", Body=bytes(size))
            assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        server.terminate()
        away.rename(devices[0])
        server.restart()
        client.put_object(Bucket=daemon_process.BUCKET, Key="new", Body=b"back")
        _verify(server, {**objects, "new": b"back"})


def test_a_full_file_system_below_everything_ends_no_process(tmp_path: pathlib.Path) -> None:
    """Whatever a process has mapped is reserved: also figures that are counted for the first time,
    and slots in the table of the index's readers."""
    place = tmp_path / "node"
    options = {**_SMALL_STORE, "stripe-bytes": "256KiB", "room-wait-seconds": "0"}
    with (
        mounted_device.mounted(place, tmp_path / "node.img"),
        daemon_process.running(place, options=options) as server,
    ):
        client = daemon_process.boto_client(server)
        objects = {"small": b"s" * 1000, "large": random.Random(1).randbytes(3 * _MIB)}
        for key, body in objects.items():
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        processes = {process.pid for process in server.tree()}
        with (place / "filler").open("wb", buffering=0) as filler:
            for piece in (bytes(_MIB), bytes(_KIB)):
                with contextlib.suppress(OSError):
                    while filler.write(piece):
                        pass
        assert shutil.disk_usage(place).free < 64 * _KIB
        for _ in range(3):
            _verify(server, objects)
            with pytest.raises(botocore.exceptions.ClientError) as caught:
                client.head_object(Bucket=daemon_process.BUCKET, Key="none")
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
            with pytest.raises(botocore.exceptions.ClientError) as caught:
                client.put_object(Bucket=daemon_process.BUCKET, Key="new", Body=bytes(2 * _MIB))
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
        (place / "filler").unlink()
        client.put_object(Bucket=daemon_process.BUCKET, Key="new", Body=b"room again")
        _verify(server, {**objects, "new": b"room again"})
        assert {process.pid for process in server.tree()} == processes
        listed = node_command.run("device", "list", "--json", data_dir=place)
        assert {row["state"] for row in json.loads(listed.stdout)} == {"present"}, listed.stdout


def _fill(
    server: server_process.ServerProcess, size_bytes: int
) -> tuple[dict[str, bytes], dict[str, typing.Any]]:
    """Write until refused for good; what was acknowledged, and the refusal."""
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for _ in range(_PUTS_MAX):
        key = f"fill/{len(objects):05d}"
        body = random.Random(key).randbytes(size_bytes)
        try:
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        except botocore.exceptions.ClientError as exc:
            if exc.response["Error"]["Code"] == "SlowDown":
                continue  # Zones have come back meanwhile, too few for this write.
            return objects, typing.cast("dict[str, typing.Any]", exc.response)
        objects[key] = body
    raise AssertionError(f"{_PUTS_MAX} objects of {size_bytes} bytes did not fill the store")


def _delete_some(
    server: server_process.ServerProcess, objects: dict[str, bytes], count: int
) -> None:
    client = daemon_process.boto_client(server)
    keys = list(objects)[-2 * count :]
    for key in keys[:count]:
        client.delete_object(Bucket=daemon_process.BUCKET, Key=key)
        del objects[key]
    answer = client.delete_objects(
        Bucket=daemon_process.BUCKET, Delete={"Objects": [{"Key": key} for key in keys[count:]]}
    )
    assert not answer.get("Errors"), answer
    for key in keys[count:]:
        del objects[key]


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=daemon_process.BUCKET)
    listed = [row["Key"] for page in pages for row in page.get("Contents", [])]
    assert listed == sorted(objects)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"
