"""A week of overwrites in minutes: does space stay bounded on a node that is kept nearly full?

``python -m couchestor_bench.endurance [--seconds 180] [--fill-percent 80] [--seed 1]``

A node of small zones is filled to a part of what its devices hold as stripes. Then clients
overwrite, delete and create objects of 4 KiB to 4 MiB, keys chosen as by Zipf's law, while what is
alive stays at that mark. Every few seconds a line tells zones and bytes in use, what is alive, the
rate of writes and their p99. Afterwards the node rests until no more zones come back, and every
object is read back.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import collections
import contextlib
import itertools
import json
import pathlib
import random
import re
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import numpy as np
import psutil

from couchestor_bench import peers, results, server_process, signing

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_SIZES: Final = tuple((4 * _KIB) << step for step in range(11))
"""4 KiB to 4 MiB; each carries about as many bytes as the next smaller one or more."""
_WEIGHTS: Final = tuple(2 ** (-0.7 * step) for step in range(len(_SIZES)))
_DEVICES_COUNT: Final = 6
_CODING_RATIO: Final = 1.5
_SAMPLE_SECONDS: Final = 5.0
_REST_SECONDS: Final = 20.0
"""At rest: for so long no zone has come back."""
_REST_SECONDS_MAX: Final = 300.0
_FULL_SECONDS: Final = 0.2
"""A client that was told that there is no room tries again after this."""
_METRICS: Final = ("destaged_bytes", "reclaimed_bytes", "zones_reset", "received_bytes")


class Store:
    """The objects as the clients know them, and what they were answered."""

    def __init__(self, server: server_process.ServerProcess, *, seed: int, zipf: float) -> None:
        self._server, self._dice, self._zipf = server, random.Random(seed), zipf
        # Every object is a stretch of it, so that each can be told from the others when read back.
        self._block = np.random.default_rng(seed).bytes(_SIZES[-1] + _MIB)
        self.objects: dict[str, tuple[int, int]] = {}
        self._names: list[str] = []
        self._busy: set[str] = set()
        self._weights: list[float] = []
        self._created = itertools.count()
        self.live_bytes = self.written_bytes = 0
        self.latencies: list[float] = []
        self.answers: collections.Counter[str] = collections.Counter()

    async def fill(self, session: aiohttp.ClientSession, target_bytes: int) -> None:
        """Create objects until so much is alive, or there is no more room."""

        async def work() -> None:
            while self.live_bytes < target_bytes and not self.answers["507"]:
                await self._put(session, self._new_name())

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())

    async def churn(
        self, session: aiohttp.ClientSession, *, target_bytes: int, until: float, rate: float
    ) -> None:
        """One client: overwrite, create, delete; ``rate`` bytes a second at most, 0: any."""
        began, mine = time.monotonic(), 0
        while time.monotonic() < until:
            name = self._choose()
            if name is None:
                await asyncio.sleep(0.01)
                continue
            chance = self._dice.random()
            if self.live_bytes > target_bytes or chance < 0.1:
                await self._delete(session, name)
                continue
            if chance < 0.3 and self.live_bytes < target_bytes:
                self._busy.discard(name)
                name = self._new_name()
            mine += await self._put(session, name)
            if rate:
                await asyncio.sleep(max(0.0, began + mine / rate - time.monotonic()))

    async def verify(self, session: aiohttp.ClientSession) -> int:
        """Read everything back. Returns how many objects are missing or differ."""
        bad, waiting = 0, iter(sorted(self.objects.items()))

        async def work() -> None:
            nonlocal bad
            for name, (offset, size) in waiting:
                status, body = await self._call(session, "GET", name)
                if status != 200 or body != self._block[offset : offset + size]:
                    bad += 1
                    print(f"{name} of {size} bytes: {status}, {len(body)} bytes", flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())
        return bad

    def _new_name(self) -> str:
        name = f"{next(self._created):08d}"
        self._names.append(name)
        # The newest are not the most popular: popularity is a property of the name.
        weight = 1.0 / self._dice.randint(1, 10_000) ** self._zipf
        self._weights.append((self._weights[-1] if self._weights else 0.0) + weight)
        self._busy.add(name)
        return name

    def _choose(self) -> str | None:
        """A name nobody is writing now; deleted ones too, which are created again."""
        for _ in range(20):
            at = bisect.bisect_left(self._weights, self._dice.random() * self._weights[-1])
            name = self._names[min(at, len(self._names) - 1)]
            if name not in self._busy:
                self._busy.add(name)
                return name
        return None

    async def _put(self, session: aiohttp.ClientSession, name: str) -> int:
        size = self._dice.choices(_SIZES, _WEIGHTS)[0]
        offset = self._dice.randrange(_MIB)
        began = time.perf_counter()
        status, _ = await self._call(session, "PUT", name, self._block[offset : offset + size])
        self._busy.discard(name)
        self.answers[str(status)] += 1
        if status != 200:
            await asyncio.sleep(_FULL_SECONDS)
            return 0
        self.latencies.append(time.perf_counter() - began)
        self.live_bytes += size - self.objects.get(name, (0, 0))[1]
        self.written_bytes += size
        self.objects[name] = (offset, size)
        return size

    async def _delete(self, session: aiohttp.ClientSession, name: str) -> None:
        status, _ = await self._call(session, "DELETE", name)
        self._busy.discard(name)
        self.answers[f"DELETE {status}"] += 1
        if status == 204:
            self.live_bytes -= self.objects.pop(name, (0, 0))[1]

    async def _call(
        self, session: aiohttp.ClientSession, method: str, name: str, body: bytes = b""
    ) -> tuple[int, bytes]:
        path = f"/{peers.BUCKET}/{name}"
        headers = signing.sign_headers(
            self._server.credentials, method, host=self._server.host, path=path
        )
        asked = session.request(
            method, self._server.endpoint + path, headers=headers, data=body or None
        )
        async with asked as answer:
            return answer.status, await answer.read()


class Watch:
    """What the node says of itself, and what its processes write."""

    def __init__(self, server: server_process.ServerProcess, zone_bytes: int) -> None:
        self._server, self._zone_bytes = server, zone_bytes
        self._written: dict[int, int] = {}

    def device_bytes(self) -> int:
        """Bytes that all processes of the node have sent to media, also those that are gone."""
        for process in self._server.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                self._written[process.pid] = process.io_counters().write_bytes
        return sum(self._written.values())

    def sample(self) -> dict[str, Any]:
        """Zones in use and free, and the counters that tell what the background did."""
        node = json.loads(self._page("health-port", "status"))["node"]
        zones = node.get("zones", {}).values()
        used = sum(found["used"] for found in zones)
        page = self._page("metrics-port", "metrics")
        counters = {
            name: float(found[1])
            for name in _METRICS
            if (found := re.search(rf"^couchestor_{name}(?:_total)? (\S+)$", page, re.M))
        }
        roles = {
            role: float(count)
            for role, count in re.findall(
                r'^couchestor_zones_used\{[^}]*role="(\w+)"[^}]*\} (\S+)$', page, re.M
            )
        }
        return {
            "used_bytes": used * self._zone_bytes,
            "free_zones": sum(found["free"] for found in zones),
            "zones_by_role": roles,
            "device_bytes": self.device_bytes(),
            **counters,
        }

    def _page(self, port_option: str, page: str) -> str:
        port = self._server.command[self._server.command.index(f"--{port_option}") + 1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=30) as answer:
            return str(answer.read().decode())


async def observe(store: Store, watch: Watch, *, began: float, rows: list[dict[str, Any]]) -> None:
    """Take a row every few seconds until cancelled."""
    written, at = store.written_bytes, time.monotonic()
    while True:
        await asyncio.sleep(_SAMPLE_SECONDS)
        found = await asyncio.to_thread(watch.sample)
        now = time.monotonic()
        latencies, store.latencies = store.latencies, []
        row = {
            "seconds": now - began,
            "live_bytes": store.live_bytes,
            "written_bytes": store.written_bytes,
            "rate_mib": (store.written_bytes - written) / (now - at) / _MIB,
            "p99_ms": float(np.percentile(latencies, 99)) * 1000 if latencies else None,
            "max_ms": max(latencies) * 1000 if latencies else None,
            "full_count": store.answers["507"],
            **found,
        }
        written, at = store.written_bytes, now
        rows.append(row)
        print(_line(row), flush=True)


def _line(row: dict[str, Any]) -> str:
    p99 = "-" if row["p99_ms"] is None else f"{row['p99_ms']:.0f}"
    return (
        f"{row['seconds']:6.0f} s  used {row['used_bytes'] / _MIB:5.0f} MiB, live "
        f"{row['live_bytes'] / _MIB:5.0f} MiB ({_ratio(row):.2f}), {row['free_zones']:4d} zones "
        f"free, {row['rate_mib']:5.1f} MiB/s, p99 {p99} ms, {row['full_count']} full"
    )


def _ratio(row: dict[str, Any]) -> float:
    return float(row["used_bytes"] / max(1, row["live_bytes"]))


async def rest(store: Store, watch: Watch, *, began: float) -> dict[str, Any]:
    """Wait until zones no longer come back. Returns the last sample and how long it took."""
    start = changed = time.monotonic()
    lowest = None
    while True:
        found = await asyncio.to_thread(watch.sample)
        now = time.monotonic()
        if lowest is None or found["used_bytes"] < lowest:
            lowest, changed = found["used_bytes"], now
        if now - changed >= _REST_SECONDS or now - start >= _REST_SECONDS_MAX:
            return {
                "seconds": now - began,
                "rest_seconds": changed - start,
                "live_bytes": store.live_bytes,
                **found,
            }
        await asyncio.sleep(1.0)


async def endure(server: server_process.ServerProcess, told: argparse.Namespace) -> dict[str, Any]:
    """Fill, churn, rest, read back."""
    store = Store(server, seed=told.seed, zipf=told.zipf)
    watch = Watch(server, told.zone_kib * _KIB)
    usable = told.device_mib * _MIB * _DEVICES_COUNT / _CODING_RATIO
    target, rows = int(usable * told.fill_percent / 100), list[dict[str, Any]]()
    deadline = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=deadline) as session:
        began = time.monotonic()
        observer = asyncio.create_task(observe(store, watch, began=began, rows=rows))
        try:
            await store.fill(session, target)
            filled = {"seconds": time.monotonic() - began, "live_bytes": store.live_bytes}
            print(f"filled: {store.live_bytes / _MIB:.0f} MiB of {target / _MIB:.0f}", flush=True)
            before = {
                "user": store.written_bytes,
                "device": await asyncio.to_thread(watch.device_bytes),
            }
            until = time.monotonic() + told.seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(told.connections):
                    group.create_task(
                        store.churn(
                            session,
                            target_bytes=store.live_bytes if store.answers["507"] else target,
                            until=until,
                            rate=told.rate_mib * _MIB / told.connections,
                        )
                    )
        finally:
            observer.cancel()
        user_bytes = store.written_bytes - before["user"]
        at_rest = await rest(store, watch, began=began)
        bad_count = await store.verify(session)
    return {
        "filled": filled,
        "samples": rows,
        "at_rest": at_rest,
        "user_bytes": user_bytes,
        "device_bytes": at_rest["device_bytes"] - before["device"],
        "write_amplification": (at_rest["device_bytes"] - before["device"]) / max(1, user_bytes),
        "used_per_live": _ratio(at_rest),
        "answers": dict(store.answers),
        "objects_count": len(store.objects),
        "bad_count": bad_count,
        "warnings": _warnings(server.log_path),
    }


def _warnings(path: pathlib.Path) -> dict[str, int]:
    """What the node warned of, ids and numbers left out, by how often."""
    counts: collections.Counter[str] = collections.Counter()
    for line in path.read_text(errors="replace").splitlines():
        if " WARNING " in line or " ERROR " in line:
            text = re.sub(r"request \S+", "request N", line.split(" ", 1)[1])
            counts[re.sub(r"[0-9a-f]{32}|\d+", "N", text)[:200]] += 1
    return dict(counts.most_common(20))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the raw figures, print the end. Returns 1 if an object was lost."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.endurance", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="of overwrites and deletes")
    parser.add_argument("--fill-percent", type=float, default=80.0, help="of what stripes can hold")
    parser.add_argument("--device-mib", type=int, default=768, help="capacity of each of 6 devices")
    parser.add_argument("--zone-kib", type=int, default=4096)
    parser.add_argument("--stripe-kib", type=int, default=1024)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate-mib", type=float, default=0.0, help="MiB/s at most; 0: no limit")
    parser.add_argument("--zipf", type=float, default=0.8, help="exponent of popularity")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="where the node keeps its data")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the node"
    )
    told = parser.parse_args(argv)
    options = {
        "device-capacity-bytes": f"{told.device_mib}MiB",
        "zone-bytes": f"{told.zone_kib}KiB",
        "stripe-bytes": f"{told.stripe_kib}KiB",
        "zone-grace-seconds": "2",
        "checkpoint-log-bytes": "4MiB",
        "destage-log-bytes": "16MiB",
        "destage-idle-seconds": "5",
        **dict(word.split("=", 1) for word in told.option),
    }
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = pathlib.Path(folder) / "node"
        with server_process.couchestor(place, options=options) as server:
            peers.make_bucket(server)
            figures = asyncio.run(endure(server, told))
        settings = {key: str(value) for key, value in vars(told).items()}
        path = results.write(
            "endurance", {"settings": settings, "options": options, **figures}, data_dir=place
        )
    end = figures["at_rest"]
    print(
        f"\nat rest after {end['rest_seconds']:.0f} s: used {end['used_bytes'] / _MIB:.0f} MiB, "
        f"live {end['live_bytes'] / _MIB:.0f} MiB: {figures['used_per_live']:.2f} "
        f"({_CODING_RATIO:g} is the least); "
        f"zones {end['zones_by_role']}, {end['free_zones']} free\n"
        f"written {figures['user_bytes'] / _MIB:.0f} MiB by users, "
        f"{figures['device_bytes'] / _MIB:.0f} MiB to devices: "
        f"{figures['write_amplification']:.2f}\n"
        f"answers {figures['answers']}; {figures['bad_count']} of {figures['objects_count']} "
        f"objects lost\nwarnings {json.dumps(figures['warnings'], indent=1)}\n\nraw: {path}"
    )
    return 1 if figures["bad_count"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
