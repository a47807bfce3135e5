"""kill -9 in the middle of load, again and again: nothing acknowledged is lost, nothing is torn.

``COUCHESTOR_KILL_ROUNDS`` sets the number of rounds (5), ``COUCHESTOR_KILL_SEED`` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from typing import Final

import pytest
from tests.crash import load, oracle

from couchestor_bench import server_process

_ROUND_COUNT: Final = int(os.environ.get("COUCHESTOR_KILL_ROUNDS", "5"))
_LOAD_SECONDS: Final = (0.3, 1.8)
_RECOVER_SECONDS_MAX: Final = 120
_RELEASE_SECONDS_MAX: Final = 60


_SMALL_ZONES: Final = {
    "device-capacity-bytes": "512MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "1MiB",
    "zone-grace-seconds": "1",
    "checkpoint-log-bytes": "512KiB",
}
"""So that zones come back within a round."""


@pytest.mark.timeout(120 + 60 * _ROUND_COUNT)
@pytest.mark.parametrize("lose_index", [False, True], ids=["crash", "crash-and-index-lost"])
async def test_every_acknowledged_write_survives_kill_nine_while_zones_are_released(
    tmp_path: pathlib.Path, lose_index: bool
) -> None:
    with server_process.couchestor(tmp_path / "node", options=_SMALL_ZONES) as daemon:
        judge = await torment(daemon, round_count=_ROUND_COUNT, lose_index=lose_index)
        # In the last life, if in none before: nothing else is asked of the node now.
        deadline = time.monotonic() + _RELEASE_SECONDS_MAX
        while not await asyncio.to_thread(_zones_reset, daemon):
            assert time.monotonic() < deadline, f"no zone came back:\n{daemon.log_tail()}"
            await asyncio.sleep(0.5)
        async with _client(daemon) as client:
            await load.check_all(client, judge)
        judge.check()
    shutil.rmtree(tmp_path / "node")


def _zones_reset(daemon: server_process.ServerProcess) -> float:
    port = daemon.command[daemon.command.index("--metrics-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(r"^couchestor_zones_reset_total (\S+)$", answer.read().decode(), re.M)
    return float(found[1]) if found else 0.0


@pytest.mark.timeout(120 + 60 * _ROUND_COUNT)
@pytest.mark.parametrize("lose_index", [False, True], ids=["crash", "crash-and-index-lost"])
async def test_every_acknowledged_write_survives_kill_nine(
    tmp_path: pathlib.Path, lose_index: bool
) -> None:
    with server_process.couchestor(tmp_path / "node") as daemon:
        await torment(daemon, round_count=_ROUND_COUNT, lose_index=lose_index)
    # A long run writes tens of gigabytes, which pytest would keep.
    shutil.rmtree(tmp_path / "node")


async def torment(
    daemon: server_process.ServerProcess, *, round_count: int, lose_index: bool = False
) -> oracle.Oracle:
    """Load, kill, restart and check ``round_count`` times. Returns the oracle of the run."""
    seed = int(os.environ.get("COUCHESTOR_KILL_SEED") or random.randrange(2**32))
    print(f"COUCHESTOR_KILL_SEED={seed}")
    dice, judge = random.Random(seed), oracle.Oracle()
    async with _client(daemon) as client:
        reply = await client.call("PUT")
        assert reply.status == 200, reply.body
    for index in range(round_count):
        before = judge.acknowledged_count
        writers = load.Writers(judge, seed=seed, round_index=index)
        await _load_and_kill(daemon, writers, seconds=dice.uniform(*_LOAD_SECONDS))
        if lose_index:
            await asyncio.to_thread(_recover_index, daemon)
        took = await asyncio.to_thread(daemon.restart)
        async with _client(daemon) as client:
            await load.check_all(client, judge)
        print(
            f"round {index}: {judge.acknowledged_count - before} acknowledged, "
            f"restart {took:.2f} s, {len(judge.keys())} keys, answers not had: {writers.errors}"
        )
        try:
            judge.check()
        except AssertionError as exc:
            exc.add_note(f"round {index} of seed {seed}; log:\n{daemon.log_tail()}")
            raise
        assert judge.acknowledged_count > before, f"no write succeeded: {writers.errors}"
    return judge


def _client(
    daemon: server_process.ServerProcess,
) -> contextlib.AbstractAsyncContextManager[load.Client]:
    return load.connect(daemon.endpoint, credentials=daemon.credentials, bucket="crash")


async def _load_and_kill(
    daemon: server_process.ServerProcess, writers: load.Writers, *, seconds: float
) -> None:
    stop = asyncio.Event()
    async with _client(daemon) as client:
        work = asyncio.create_task(writers.run(client, stop))
        await asyncio.sleep(seconds)
        begin = time.monotonic()
        await asyncio.to_thread(daemon.kill)
        stop.set()
        await work
        assert time.monotonic() - begin < 90, "clients hung after the server was gone"


def _recover_index(daemon: server_process.ServerProcess) -> None:
    """Delete the index and have `couchestor recover` rebuild it."""
    shutil.rmtree(daemon.data_dir / "index")
    command = [sys.executable, "-m", "couchestor_daemon.app.command", "recover"]
    done = subprocess.run(
        [*command, "--data-dir", str(daemon.data_dir)],
        env={**server_process.outer_environment(), **daemon.environment},
        capture_output=True,
        text=True,
        timeout=_RECOVER_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"recover failed:\n{done.stdout}\n{done.stderr}"
