"""`couchestor check` of a stopped node: silent when all is well, by name when bytes have rotted."""

from __future__ import annotations

import json
import pathlib
import random
import typing

import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

_OPTIONS: typing.Final = {
    "device-capacity-bytes": "64MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "512KiB",
    "workers": "2",
}

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our index, our shards")


def _check(server: server_process.ServerProcess, *words: str, status: int) -> dict[str, list[str]]:
    done = node_command.run("check", "--json", *words, data_dir=server.data_dir)
    assert done.returncode == status, (done.stdout, done.stderr)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(120)
def test_check_is_silent_about_what_is_whole_and_names_what_rotted(tmp_path: pathlib.Path) -> None:
    rng = random.Random(7)
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        client = daemon_process.boto_client(server)
        for number in range(30):
            body = rng.randbytes(rng.choice([100, 20_000, 200_000, 900_000]))
            client.put_object(Bucket=daemon_process.BUCKET, Key=f"k{number}", Body=body)
        assert server.terminate() == 0
        assert _check(server, status=0) == {"findings": [], "notes": [], "repaired": []}
        assert _check(server, "--repair", status=0)["repaired"] == []
        rotted = _rot(server.data_dir / "devices" / "d3", rng)
        assert rotted
        said = _check(server, status=1)["findings"]
        assert [line for line in said if "shards of member" in line and "start the node" in line]
        server.restart()
        for number in range(30):
            client.get_object(Bucket=daemon_process.BUCKET, Key=f"k{number}")["Body"].read()


def _rot(device: pathlib.Path, rng: random.Random) -> int:
    """Flip one byte in the middle of every zone of stripes."""
    count = 0
    for path in sorted((device / "zones").glob("*.zone")):
        content = bytearray(path.read_bytes())
        at = content.find(b"CSTSHARD")
        if at < 0:
            continue
        content[at + 4096 + rng.randrange(4096)] ^= 0xFF
        path.write_bytes(content)
        count += 1
    return count
