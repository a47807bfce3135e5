"""Mayastor's REST API on loopback, with the works of its manager in the test's hands.

Every request and every answer is held to the interface. As the real one, it makes a replica where
it likes as soon as it is told a number, and takes one away that it likes, one that is not whole
first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import mayastor_interface
from aiohttp import web

ROOT = "/v0"


@dataclass(slots=True)
class Answer:
    """A status and a document."""

    status: int
    document: Any


def refusal(status: int, kind: str, text: str) -> Answer:
    """As the API words it."""
    return Answer(status, {"kind": kind, "details": text, "message": text})


@dataclass(slots=True)
class FakeMayastor:
    """Pools, nodes and volumes as the API has them."""

    url: str = ""
    token: str | None = None
    """Asked of every request, if there is one."""
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    next_answers: list[Answer] = field(default_factory=list)
    """Given in place of what would be answered."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    unspecified: list[str] = field(default_factory=list)
    """Requests and answers that the interface does not have."""
    page_entries_max: int = 1000
    interface: mayastor_interface.Interface = field(default_factory=mayastor_interface.interface)

    # -- what a test does to it --------------------------------------------------------------------

    def put_pool(self, name: str, *, node: str, tier: str, available_bytes: int) -> None:
        """Have a pool on a node that is there."""
        self.nodes[node] = {
            "id": node,
            "spec": {"grpcEndpoint": "10.1.0.5:10124", "id": node},
            "state": {"grpcEndpoint": "10.1.0.5:10124", "id": node, "status": "Online"},
        }
        self.pools[name] = {
            "id": name,
            "spec": {
                "disks": ["/dev/sda"],
                "id": name,
                "labels": {"tier": tier},
                "node": node,
                "status": "Created",
            },
            "state": {
                "capacity": available_bytes,
                "disks": ["aio:///dev/sda"],
                "id": name,
                "node": node,
                "status": "Online",
                "used": 0,
            },
        }

    def fill_pool(self, name: str, *, available_bytes: int) -> None:
        """Leave so much room in it."""
        state = self.pools[name]["state"]
        state["used"] = state["capacity"] - available_bytes

    def put_volume(self, name: str, *homes: str, size_bytes: int) -> None:
        """Have a volume that is published, with a whole replica in each of the pools."""
        self.volumes[name] = {
            "spec": {
                "num_paths": 1,
                "num_replicas": len(homes),
                "num_snapshots": 0,
                "policy": {"self_heal": True},
                "protocol": "none",
                "size": size_bytes,
                "status": "Created",
                "thin": False,
                "uuid": name,
            },
            "state": {
                "size": size_bytes,
                "status": "Online",
                "uuid": name,
                "replica_topology": {
                    str(uuid.uuid4()): self._replica(home, "Online") for home in homes
                },
            },
        }

    def topology(self, name: str) -> dict[str, dict[str, Any]]:
        """The replicas of a volume, by id."""
        found: dict[str, dict[str, Any]] = self.volumes[name]["state"]["replica_topology"]
        return found

    def break_replica(self, name: str, pool_name: str) -> None:
        """Have the replica in a pool fault."""
        for replica in self.topology(name).values():
            if replica["pool"] == pool_name:
                replica["child-status"] = "Faulted"

    def settle(self, name: str) -> None:
        """Have one rebuild be over."""
        for replica in self.topology(name).values():
            if "rebuild-progress" in replica:
                del replica["rebuild-progress"]
                replica["child-status"] = "Online"
                return

    # -- what it does ------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request to any path."""
        path = request.path
        self.asked.append((request.method, path))
        try:
            if not path.startswith(ROOT):
                raise mayastor_interface.Unspecified(f"there is no {path}")
            path = path.removeprefix(ROOT)
            operation = self.interface.operation(request.method, path, request.query)
            answer = self._answer(request, path)
            self.interface.check_answer(operation, answer.status, answer.document)
        except (mayastor_interface.Unspecified, ValueError) as exc:
            self.unspecified.append(f"{request.method} {request.path_qs}: {exc}")
            answer = refusal(400, "InvalidArgument", str(exc))
        return web.Response(
            status=answer.status,
            body=json.dumps(answer.document).encode(),
            content_type="application/json",
        )

    def _answer(self, request: web.Request, path: str) -> Answer:
        if self.next_answers:
            return self.next_answers.pop(0)
        if (
            self.token is not None
            and request.headers.get("Authorization") != f"Bearer {self.token}"
        ):
            return refusal(401, "Unauthenticated", "no token")
        match path.removeprefix("/").split("/"):
            case ["nodes"]:
                return Answer(200, list(self.nodes.values()))
            case ["pools"]:
                return Answer(200, list(self.pools.values()))
            case ["volumes"]:
                return self._page(request)
            case ["nodes" | "pools" | "volumes" as kind, name]:
                found = getattr(self, kind).get(name)
                if found is None:
                    return refusal(404, "NotFound", f"The resource '{name}' was not found")
                return Answer(200, found)
            case ["volumes", name, "replica_count", count]:
                return self._set_count(name, int(count))
        raise AssertionError(path)

    def _page(self, request: web.Request) -> Answer:
        first = int(request.query.get("starting_token", "0"))
        length = min(int(request.query["max_entries"]), self.page_entries_max)
        entries = list(self.volumes.values())
        page: dict[str, Any] = {"entries": entries[first : first + length]}
        if first + length < len(entries):
            page["next_token"] = first + length
        return Answer(200, page)

    def _set_count(self, name: str, count: int) -> Answer:
        found = self.volumes.get(name)
        if found is None:
            return refusal(404, "NotFound", f"Volume '{name}' not found")
        topology = self.topology(name)
        taken = {replica["node"] for replica in topology.values()}
        if count > len(topology):
            free = [
                pool
                for pool in self.pools.values()
                if pool["state"]["node"] not in taken
                and pool["state"]["capacity"] - pool["state"]["used"] >= found["spec"]["size"]
            ]
            if not free:
                return refusal(507, "ResourceExhausted", "Not enough suitable pools available")
            made = self._replica(free[0]["id"], "Degraded")
            topology[str(uuid.uuid4())] = made | {"rebuild-progress": 0}
        elif count < len(topology):
            by_worth = sorted(topology, key=lambda key: topology[key]["child-status"] == "Online")
            del topology[by_worth[0]]
        found["spec"]["num_replicas"] = count
        return Answer(200, found)

    def _replica(self, home: str, child_status: str) -> dict[str, Any]:
        return {
            "node": self.pools[home]["state"]["node"],
            "pool": home,
            "state": "Online",
            "child-status": child_status,
        }


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[FakeMayastor]:
    """A server on a free port until the end of the block, which says what was not of the API."""
    server = FakeMayastor()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
        assert not server.unspecified
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
