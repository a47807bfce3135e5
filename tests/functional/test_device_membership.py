"""Devices join and retire between two runs of a node, and what must not join is refused by name."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import typing

import pytest
from tests.functional import daemon_process, node_command, zone_files

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_SMALL: typing.Final = {
    "device-capacity-bytes": "96MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "1MiB",
    "workers": "2",
}

_INTERRUPTED_MOVE: typing.Final = "when the node stopped; its next start frees it"

pytestmark = [
    pytest.mark.skipif(daemon_process.is_peer(), reason="our devices, our membership"),
    pytest.mark.timeout(240),
]


def _told(words: typing.Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in words.items() if name != "workers"}


def _zones(device: pathlib.Path) -> dict[str, int]:
    found = zone_files.status_of(device)
    return {path.name: status.st_size for path, status in found.items()}


def _write(server: server_process.ServerProcess, prefix: str) -> dict[str, bytes]:
    """Enough small and striped objects to open new segments and groups."""
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for number in range(24):
        key = f"{prefix}/{number:02d}"
        size = 3 * _MIB + 7 if number % 3 == 0 else 90 * _KIB
        objects[key] = random.Random(key).randbytes(size)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"


def _rows(data_dir: pathlib.Path) -> dict[str, dict[str, typing.Any]]:
    done = node_command.run("device", "list", "--json", data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    return {row["label"]: row for row in json.loads(done.stdout)}


def test_a_seventh_device_is_written_to_and_a_retiring_one_no_more(tmp_path: pathlib.Path) -> None:
    seventh = tmp_path / "disk6"
    with daemon_process.running(tmp_path / "node", options=_SMALL) as server:
        data_dir = server.data_dir
        objects = _write(server, "six")
        server.terminate()

        seventh.mkdir()
        added = node_command.run(
            "device", "add", str(seventh), data_dir=data_dir, options=_told(_SMALL)
        )
        assert added.returncode == 0, added.stderr
        assert added.stdout.startswith(f"added device disk6 at {seventh}: 96 zones")
        server.restart()
        assert _rows(data_dir)["disk6"]["state"] == "present"
        objects |= _write(server, "seven")
        assert len(_zones(seventh)) >= 4
        _verify(server, objects)

        # Killed, not stopped: segments and groups with zones on the device are left open.
        server.kill()
        retired = node_command.run("device", "retire", "disk6", data_dir=data_dir)
        assert retired.returncode == 0, retired.stderr
        assert "disk6 is retiring" in retired.stdout
        before = _zones(seventh)
        for _ in range(2):
            server.restart()
            objects |= _write(server, f"retired-{len(objects)}")
            _verify(server, objects)
            # Nothing new and nothing longer; a superseded checkpoint may have given zones back.
            assert _zones(seventh).items() <= before.items()
            assert _rows(data_dir)["disk6"]["state"] == "retiring"
            server.terminate()

        # Its data is read from it: without it and two more, stripes over all three are lost.
        for name in ("d0", "d1"):
            (data_dir / "devices" / name).rename(tmp_path / f"away-{name}")
        server.restart()
        _verify(server, objects)
        server.terminate()
        for name in ("d0", "d1"):
            (tmp_path / f"away-{name}").rename(data_dir / "devices" / name)
        shutil.rmtree(data_dir / "index")
        recovered = node_command.run("recover", data_dir=data_dir)
        assert recovered.returncode == 0, recovered.stderr
        # Before a start, whose rebuild finds that nothing is wrong with what waits for it.
        checked = node_command.run("check", data_dir=data_dir)
        assert checked.returncode == 1
        findings = checked.stdout.splitlines()
        waiting = [line for line in findings if " shards wait for repair: " in line]
        assert len(waiting) == 2, findings
        # A device that was away keeps its copy of the checkpoint that was given up meanwhile, and
        # the stop may come while a member is moved off the retiring device.
        others = [line for line in findings if line not in waiting]
        assert all(
            line.startswith("the copy of checkpoint ") or line.endswith(_INTERRUPTED_MOVE)
            for line in others
        ), findings
        server.restart()
        _verify(server, objects)


def test_what_does_not_belong_stops_the_start_with_one_line(tmp_path: pathlib.Path) -> None:
    """A device of another node, an old copy, the same device twice, a device in use."""
    with daemon_process.running(tmp_path / "other", options=_SMALL) as other:
        other.terminate()
    with daemon_process.running(tmp_path / "node", options=_SMALL) as server:
        data_dir = server.data_dir
        devices = [data_dir / "devices" / f"d{number}" for number in range(6)]
        server.terminate()
        copy = tmp_path / "copy-of-d1"
        shutil.copytree(devices[1], copy)
        (tmp_path / "again").symlink_to(devices[2])
        server.restart()
        server.terminate()
        foreign = tmp_path / "other" / "devices" / "d0"
        for wrong, text in (
            (foreign, f"{foreign} carries device d0 "),
            (copy, f"{copy} is an old copy of device d1 "),
            (tmp_path / "again", f"{tmp_path / 'again'} and {devices[2]} are the same device d2 "),
        ):
            named = ",".join(map(str, [*devices, wrong]))
            started = node_command.refused_start(data_dir, {**_SMALL, "devices": named})
            assert text in node_command.only_complaint(started)
        server.restart()
        named = ",".join(map(str, devices))
        second = node_command.refused_start(tmp_path / "second", {**_SMALL, "devices": named})
        held = f"{devices[0]} is held by another daemon (process {server.pid})"
        assert held in node_command.only_complaint(second)
