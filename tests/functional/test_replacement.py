"""Dead media are replaced by empty ones while the node serves: once it says that it is whole again,
two others may die.

``COUCHESTOR_REPLACEMENT_ROUNDS`` sets how many pairs of devices die one after the other (2),
``COUCHESTOR_REPLACEMENT_SEED`` repeats the choices of a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import random
import time
import typing
import urllib.request
from collections.abc import AsyncIterator

import pytest
from tests.crash import load, oracle
from tests.functional import daemon_process, node_command, zone_files

from couchestor_bench import server_process

_ROUND_COUNT: typing.Final = int(os.environ.get("COUCHESTOR_REPLACEMENT_ROUNDS", "2"))
_DEVICES: typing.Final = tuple(f"d{number}" for number in range(6))
_OPTIONS: typing.Final = {
    "device-capacity-bytes": "512MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "512KiB",
    "workers": "2",
    "rebuild-delay-seconds": "1",
    "zone-grace-seconds": "1",
    "checkpoint-log-bytes": "4MiB",
}
_CLIENTS_COUNT: typing.Final = 4
_LOAD_SECONDS: typing.Final = 1.5
_WHOLE_SECONDS_MAX: typing.Final = 90.0
_QUIET_SECONDS: typing.Final = 8.0
"""For so long nothing may wait: longer than the delay and the time between two looks."""
_MOVED: typing.Final = "what was stored over lost devices has moved"
_FORGOTTEN_SECONDS_MAX: typing.Final = 30.0
_KEPT_COUNT: typing.Final = 48
_KEPT_SIZES: typing.Final = (1, 5_000, 90_000, 150_000, 400_000, 900_000, 1_500_000, 2_500_000)


@pytest.mark.skipif(daemon_process.is_peer(), reason="our devices, our shards")
@pytest.mark.timeout(120 + 120 * _ROUND_COUNT)
async def test_replaced_devices_are_as_good_as_the_dead_ones(tmp_path: pathlib.Path) -> None:
    seed = int(os.environ.get("COUCHESTOR_REPLACEMENT_SEED") or random.randrange(2**32))
    print(f"COUCHESTOR_REPLACEMENT_SEED={seed}")
    judge, rounds = oracle.Oracle(), itertools.count()
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        await _write_kept(server, judge)
        *replaced, last = _pairs(seed, _ROUND_COUNT)
        for pair in replaced:
            await _destroy_under_load(server, judge, seed, next(rounds), pair=pair)
            async with _loaded(server, judge, seed, next(rounds)):
                for name in pair:
                    await asyncio.to_thread(_replace, server, name)
            took = await _wait_until_whole(server)
            print(f"{pair}: whole {took:.1f} s after the load, {judge.acknowledged_count} writes")
            for name in pair:
                await asyncio.to_thread(_forget, server, name)
        await _destroy_under_load(server, judge, seed, next(rounds), pair=last)


def _pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """Devices to die together; no pair shares one with the pair before it."""
    dice, pairs = random.Random(seed), list[tuple[str, str]]()
    while len(pairs) < count:
        before = pairs[-1] if pairs else ()
        first, second = dice.sample([name for name in _DEVICES if name not in before], 2)
        pairs.append((first, second))
    return pairs


async def _destroy_under_load(
    server: server_process.ServerProcess,
    judge: oracle.Oracle,
    seed: int,
    round_index: int,
    *,
    pair: tuple[str, str],
) -> None:
    """One device, then the other; everything is there and new writes succeed."""
    async with _loaded(server, judge, seed, round_index):
        for name in pair:
            await asyncio.to_thread(zone_files.destroy, server.data_dir / "devices" / name)
            await asyncio.sleep(_LOAD_SECONDS)
    await _check(server, judge)


def _replace(server: server_process.ServerProcess, name: str) -> None:
    """What docs/OPERATIONS.md says of a dead medium: an empty one at its path, while it serves."""
    folder = server.data_dir / "devices" / name
    assert list(folder.iterdir()) == []
    line = _device(server, "replace", name, str(folder))
    assert f"in place of device {name}, whose shards are rebuilt" in line


def _forget(server: server_process.ServerProcess, name: str) -> None:
    """The dead device: nothing refers to it for long once the node is whole."""
    ends = time.monotonic() + _FORGOTTEN_SECONDS_MAX
    while True:
        done = node_command.run("device", "remove", name, data_dir=server.data_dir)
        if done.returncode == 0:
            break
        assert "cannot be taken out yet: the index refers to" in done.stderr
        assert time.monotonic() < ends, f"{done.stderr}\n{server.log_tail()}"
        time.sleep(0.5)
    rows = json.loads(_device(server, "list", "--json"))
    assert [row["state"] for row in rows if row["label"] == name] == ["present"], rows


def _device(server: server_process.ServerProcess, *words: str) -> str:
    done = node_command.run("device", *words, data_dir=server.data_dir)
    assert done.returncode == 0, f"{done.stderr}\n{server.log_tail()}"
    return done.stdout


@contextlib.asynccontextmanager
async def _loaded(
    server: server_process.ServerProcess, judge: oracle.Oracle, seed: int, round_index: int
) -> AsyncIterator[None]:
    """Clients that write, overwrite, delete and read; every answer must be a good one."""
    writers = load.Writers(judge, seed=seed, client_count=_CLIENTS_COUNT, round_index=round_index)
    before, stop = judge.acknowledged_count, asyncio.Event()
    async with _client(server) as client:
        work = asyncio.create_task(writers.run(client, stop))
        try:
            yield
        finally:
            stop.set()
            await work
    assert not writers.errors, writers.errors
    assert judge.acknowledged_count > before + 10 * _CLIENTS_COUNT
    judge.check()


async def _check(server: server_process.ServerProcess, judge: oracle.Oracle) -> None:
    async with _client(server) as client:
        await load.check_all(client, judge)
    judge.check()


def _client(
    server: server_process.ServerProcess,
) -> contextlib.AbstractAsyncContextManager[load.Client]:
    return load.connect(
        server.endpoint, credentials=server.credentials, bucket=daemon_process.BUCKET
    )


async def _write_kept(server: server_process.ServerProcess, judge: oracle.Oracle) -> None:
    """Objects that nobody touches again: their groups can only be rebuilt."""
    async with _client(server) as client:
        for number in range(_KEPT_COUNT):
            size = _KEPT_SIZES[number % len(_KEPT_SIZES)] + number
            written = judge.issue(f"kept/{number:03d}", started=time.monotonic(), size_bytes=size)
            headers = {load.VERSION_HEADER: str(written.version)}
            reply = await client.call("PUT", written.key, headers=headers, body=written.body())
            assert reply.status == 200, reply.body
            judge.acknowledge(written, ended=time.monotonic(), etag=reply.etag)


async def _wait_until_whole(server: server_process.ServerProcess) -> float:
    """Until for a while nothing has waited for a rebuild, nor to move to narrower groups, which is
    what becomes of groups that were given up before a device was free. Returns seconds."""
    begun = quiet_since = time.monotonic()
    while True:
        node = await asyncio.to_thread(_status, server)
        rebuild, moving = node.get("rebuild") or {}, node.get("moving") or {}
        now = time.monotonic()
        assert not rebuild.get("groups_failed"), rebuild
        if not rebuild or rebuild["groups_waiting"] or moving.get("groups"):
            quiet_since = now
        if now - quiet_since >= _QUIET_SECONDS:
            assert rebuild["groups_rebuilt"] or _MOVED in server.log_path.read_text("utf-8")
            return quiet_since - begun
        assert now - begun < _WHOLE_SECONDS_MAX, f"{rebuild} {moving}\n{server.log_tail()}"
        await asyncio.sleep(0.3)


def _status(server: server_process.ServerProcess) -> dict[str, typing.Any]:
    port = server.command[server.command.index("--health-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        return json.load(answer).get("node") or {}
