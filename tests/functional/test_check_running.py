"""`couchestor check` beside a running node: no false alarm under load, and real damage by name."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import threading
import typing
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process, node_command, zone_files

from couchestor_bench import server_process

_OPTIONS: typing.Final = {
    "device-capacity-bytes": "96MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "256KiB",
    "workers": "2",
    # Maintenance has as much to do as it can: everything moves, and zones come back at once.
    "zone-grace-seconds": "1",
    "destage-idle-seconds": "1",
    "destage-log-bytes": "1MiB",
    "destage-age-seconds": "1",
    "checkpoint-log-bytes": "1MiB",
    "checkpoint-log-percent": "0",
    "reclaim-dead-percent": "10",
    "scrub-period-seconds": "0",
}
_LOOKS_COUNT: typing.Final = 3

pytestmark = [
    pytest.mark.skipif(daemon_process.is_peer(), reason="our index, our shards"),
    pytest.mark.timeout(120),
]


def _check(server: server_process.ServerProcess, *words: str) -> tuple[int, dict[str, list[str]]]:
    done = node_command.run("check", "--json", *words, data_dir=server.data_dir)
    assert done.returncode in (0, 1), (done.stdout, done.stderr)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return done.returncode, found


def test_a_loaded_node_gives_no_false_alarm_and_rot_is_named(tmp_path: pathlib.Path) -> None:
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        client = daemon_process.boto_client(server)
        for number in range(12):
            body = random.Random(number).randbytes(700_000)
            client.put_object(Bucket=daemon_process.BUCKET, Key=f"still/{number}", Body=body)
        with _overwriting(server) as written:
            for _ in range(_LOOKS_COUNT):
                assert _check(server, "--bytes-per-second", "0") == (
                    0,
                    {"findings": [], "notes": [], "repaired": []},
                )
        assert written.count > 50, "the node was hardly loaded"
        rotted = _rot_oldest_group(server.data_dir / "devices" / "d3")
        assert _check(server, "--quick")[0] == 0, "tables are whole"
        status, said = _check(server)
        assert status == 1
        assert rotted
        (line,) = said["findings"]
        assert line.startswith("1 shards of member")
        assert "the running node rebuilds them" in line
        refused = node_command.run("check", "--repair", data_dir=server.data_dir)
        assert "is running, and repairs by itself" in node_command.only_complaint(refused)


class _Written:
    count = 0


@contextlib.contextmanager
def _overwriting(server: server_process.ServerProcess) -> Iterator[_Written]:
    """Clients that put, replace and delete objects of all kinds until the block ends."""
    written, ended = _Written(), threading.Event()
    failures: list[BaseException] = []

    def load(seed: int) -> None:
        rng = random.Random(seed)
        client = daemon_process.boto_client(server)
        try:
            while not ended.is_set():
                key = f"moving/{seed}/{rng.randrange(12)}"
                if rng.random() < 0.2:
                    client.delete_object(Bucket=daemon_process.BUCKET, Key=key)
                    continue
                body = rng.randbytes(rng.choice([50, 9_000, 100_000, 400_000]))
                client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
                written.count += 1
        except BaseException as exc:
            failures.append(exc)
            raise

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def _rot_oldest_group(device: pathlib.Path) -> bool:
    """Flip a byte of the first shard of the group that was written first: nothing of it moves."""
    shards = zone_files.with_shards(device)
    found = zone_files.status_of(device)
    for path in sorted(found.keys() & shards, key=lambda each: found[each].st_mtime):
        with path.open("r+b") as file:
            at = file.read(16384).find(b"CSTSHARD")
            file.seek(at + 5000)
            byte = file.read(1)[0]
            file.seek(at + 5000)
            file.write(bytes([byte ^ 0xFF]))
            return True
    return False
