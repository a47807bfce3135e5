"""Lost and rotted shards come back, or what they were part of moves: then two others may go."""

from __future__ import annotations

import json
import mmap
import pathlib
import random
import shutil
import time
import typing
import urllib.request
from collections.abc import Callable

import pytest
from tests.functional import daemon_process, mounted_device, node_command, zone_files

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_BLOCK_BYTES: typing.Final = 4 * _KIB
_OPTIONS: typing.Final = {
    "device-capacity-bytes": "64MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "512KiB",
    "workers": "1",
    "scrub-period-seconds": "4",
    "rebuild-delay-seconds": "1",
    "zone-grace-seconds": "1",
}
_DEADLINE_SECONDS: typing.Final = 90.0

pytestmark = [
    pytest.mark.skipif(daemon_process.is_peer(), reason="our shards, our devices"),
    pytest.mark.timeout(300),
]


def test_rot_and_lost_zones_are_found_and_repaired(tmp_path: pathlib.Path) -> None:
    rng = random.Random(3)
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        objects = _write(server, "before", 40)
        assert server.terminate() == 0
        assert _lose_zones(server, "d2") > 3
        assert _rot_blocks(server, "d3", rng) > 3
        server.restart()
        # Nothing is written: groups that were still open must not wait for that.
        _wait(server, lambda node: _has_come_to_rest(node, rebuilt=3))
        assert server.terminate() == 0
        said = json.loads(node_command.run("check", "--json", data_dir=server.data_dir).stdout)
        assert not [line for line in said["findings"] if "shards of member" in line], said
        server.restart()
        for name in ("d0", "d5"):
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def test_rot_below_the_page_cache_is_found(tmp_path: pathlib.Path) -> None:
    """The medium is a loop device's image: the file system above does not see it change."""
    device, image = tmp_path / "node" / "devices" / "d1", tmp_path / "d1.img"
    with (
        mounted_device.mounted(device, image),
        daemon_process.running(tmp_path / "node", options=_OPTIONS) as server,
    ):
        objects = _write(server, "before", 12)
        mounted_device.run("sync", "-f", str(device))
        # Data or parity, as the device has it; cached from now on.
        path = zone_files.with_shards(device)[0]
        block = path.read_bytes()[4 * _BLOCK_BYTES : 5 * _BLOCK_BYTES]
        with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as medium:
            at = medium.find(block)
            medium[at + 7] ^= 0xFF
            medium.flush()
        assert block in path.read_bytes(), "the cache does not have it as it was"
        _wait(server, lambda node: _has_come_to_rest(node, rebuilt=1))
        for name in ("d3", "d5"):
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def test_a_log_replica_that_rotted_is_made_up_for(tmp_path: pathlib.Path) -> None:
    """Nothing else moves what is in the log here, and no checkpoint is due."""
    options = {**_OPTIONS, "scrub-period-seconds": "2", "destage-idle-seconds": "3600"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        objects = {f"small/{n}": random.Random(n).randbytes(20_000) for n in range(20)}
        for key, body in objects.items():
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        rotted = _rot_payload(server, objects["small/7"])
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            done = node_command.run("check", "--json", data_dir=server.data_dir)
            if done.returncode == 0 and "does not verify on" in server.log_path.read_text("utf-8"):
                break
            assert time.monotonic() < deadline, done.stdout
        others = [name for name in ("d0", "d1", "d2", "d3", "d4", "d5") if name != rotted]
        for name in others[:2]:
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def _rot_payload(server: server_process.ServerProcess, payload: bytes) -> str:
    """Flip a byte of a payload in one replica of the log; the name of its device."""
    for path in sorted((server.data_dir / "devices").glob("d*/zones/*.zone")):
        at = path.read_bytes().find(payload)
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + 100)
                file.write(bytes([payload[100] ^ 0xFF]))
            return path.parent.parent.name
    raise AssertionError("the payload is on no device")


def test_an_empty_device_takes_what_a_dead_one_held(tmp_path: pathlib.Path) -> None:
    spare = tmp_path / "spare"
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        objects = _write(server, "before", 40)
        assert server.terminate() == 0
        shutil.rmtree(server.data_dir / "devices" / "d4")
        spare.mkdir()
        added = node_command.run(
            "device", "add", str(spare), data_dir=server.data_dir, options=_told()
        )
        assert added.returncode == 0, added.stderr
        server.restart()
        objects |= _write(server, "after", 2)
        _wait(server, lambda node: _has_come_to_rest(node, rebuilt=3))
        _verify(server, objects)
        for name in ("d1", "d3"):
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def test_a_lost_device_is_made_up_for_by_the_others(tmp_path: pathlib.Path) -> None:
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        objects = _write(server, "before", 40)
        zone_files.destroy(server.data_dir / "devices" / "d4")
        objects |= _write(server, "after", 6)
        _wait(server, _has_moved_everything)
        said = server.log_path.read_text("utf-8")
        assert "to 3 + 2: no device is free to take the place of d4" in said
        _verify(server, objects)
        for name in ("d0", "d5"):
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def _told() -> dict[str, str]:
    names = ("device-capacity-bytes", "zone-bytes", "stripe-bytes")
    return {name: _OPTIONS[name] for name in names}


def _write(server: server_process.ServerProcess, prefix: str, count: int) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for number in range(count):
        key = f"{prefix}/{number:03d}"
        size = (900 * _KIB, 300 * _KIB, 150 * _KIB, 512 * _KIB)[number % 4]
        objects[key] = random.Random(key).randbytes(size)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"


def _lose_zones(server: server_process.ServerProcess, device: str) -> int:
    paths = zone_files.with_shards(server.data_dir / "devices" / device)
    for path in paths:
        path.unlink()
    return len(paths)


def _rot_blocks(server: server_process.ServerProcess, device: str, rng: random.Random) -> int:
    """Flip a byte in one of a hundred blocks, and in one of every zone at least."""
    count = 0
    for path in zone_files.with_shards(server.data_dir / "devices" / device):
        content = bytearray(path.read_bytes())
        blocks = range(1, len(content) // 4096)
        for block in rng.sample(blocks, max(1, len(blocks) // 100)):
            content[block * 4096 + rng.randrange(4096)] ^= 0xFF
            count += 1
        path.write_bytes(content)
    return count


def _wait(
    server: server_process.ServerProcess, reached: Callable[[dict[str, typing.Any]], bool]
) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        with urllib.request.urlopen(f"{_health(server)}/status", timeout=5) as answer:
            node = json.load(answer).get("node") or {}
        if reached(node):
            return
        assert time.monotonic() < deadline, node
        time.sleep(0.3)


def _health(server: server_process.ServerProcess) -> str:
    port = server.command[server.command.index("--health-port") + 1]
    return f"http://127.0.0.1:{port}"


def _has_come_to_rest(node: dict[str, typing.Any], *, rebuilt: int) -> bool:
    """Something was rebuilt, and a whole pass of the scrub that began later found no damage."""
    found, scrub = node.get("rebuild") or {}, node.get("scrub") or {}
    now = scrub.get("now") or {}
    return bool(
        found.get("groups_rebuilt", 0) >= rebuilt
        and not found.get("groups_waiting")
        and now.get("ended_at")
        and not now.get("shards_damaged")
    )


def _has_moved_everything(node: dict[str, typing.Any]) -> bool:
    """Something had to move, and nothing has to any more."""
    moving, rebuild = node.get("moving") or {}, node.get("rebuild") or {}
    return moving.get("groups") == 0 and not rebuild.get("groups_waiting")
