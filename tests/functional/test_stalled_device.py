"""A device whose file system hangs: writers go on elsewhere, and what lands late harms nothing.

The hang is the kernel's: the device is an ext4 on a loop device that is frozen, so that every
write, flush and reset waits in the kernel, where no signal ends it, until it is thawed.
"""

from __future__ import annotations

import pathlib
import random
import time
import typing

import pytest
from tests.functional import daemon_process, mounted_device, node_command

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_DEADLINE_SECONDS: typing.Final = 1
_OPTIONS: typing.Final = {
    "device-deadline-seconds": str(_DEADLINE_SECONDS),
    "device-capacity-bytes": str(128 * _MIB),
    "zone-bytes": str(4 * _MIB),
    "workers": "2",
}


@pytest.mark.skipif(daemon_process.is_peer(), reason="the peer keeps one copy")
@pytest.mark.timeout(120)
def test_a_device_that_hangs_holds_nobody_and_what_it_does_late_harms_nothing(
    tmp_path: pathlib.Path,
) -> None:
    stalled = tmp_path / "node" / "devices" / "d1"
    with (
        mounted_device.mounted(stalled, tmp_path / "d1.img"),
        daemon_process.running(tmp_path / "node", options=_OPTIONS) as server,
    ):
        try:
            objects = _write(server, "before", 12)
            mounted_device.run("fsfreeze", "-f", str(stalled))
            began = time.monotonic()
            objects |= _write(server, "during", 12)
            # The commit, each of some open groups and each worker may meet it once.
            assert time.monotonic() - began < 15 * _DEADLINE_SECONDS
            again = time.monotonic()
            objects |= _write(server, "after", 12)
            assert time.monotonic() - again < 5
            _verify(server, objects)
            port = server.command[server.command.index("--health-port") + 1]
            said, ends = "", time.monotonic() + 10
            while "warning: device d1 is out of service:" not in said:
                assert time.monotonic() < ends, said
                said = node_command.run(
                    "status", data_dir=server.data_dir, options={"health-port": port}
                ).stdout
            assert "has not ended after 1 s" in said, said
        finally:
            mounted_device.run("fsfreeze", "-u", str(stalled))
        # What was under way lands now, while the node serves; the device stays out.
        objects |= _write(server, "thawed", 12)
        _verify(server, objects)
        assert server.terminate() == 0
        server.restart()
        objects |= _write(server, "restarted", 12)
        # The device is as good as any other again: with it, any two may go.
        for name in ("d0", "d2"):
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _verify(server, objects)


def _write(server: server_process.ServerProcess, prefix: str, count: int) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for number in range(count):
        key = f"{prefix}/{number:03d}"
        size = (1, 4 * _KIB, 100 * _KIB, 300 * _KIB)[number % 4]
        objects[key] = random.Random(key).randbytes(size)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"
