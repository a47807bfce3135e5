"""What an operator finds in a cluster: a volume, pools, a policy, and who manages the volume."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.kube import control_plane, helm_runs, mayastor_resources, operator_runs

from couchestor_operator.resources import definition, field_types

VOLUME_BYTES: Final = 100

_numbers: Final = itertools.count()


class Stage:
    """A volume in a cold pool, a policy for it, and a manager that works when it is let."""

    def __init__(self, plane: control_plane.ControlPlane) -> None:
        self.plane = plane
        self.cluster = mayastor_resources.Cluster(plane)
        operator_runs.have_namespace(plane, helm_runs.NAMESPACE)
        self.volume = f"moves-{next(_numbers)}"
        self.policy = self.lease = self.cluster.namespace
        self.heat = {self.volume: 9000.0}
        self.whole_counts: list[int] = []
        for tier, node in (("cold", "node-a"), ("hot", "node-b")):
            self.cluster.put_pool(f"{tier}-0", node=node, tier=tier, available_bytes=1000)
        self.cluster.put_volume(
            self.volume, "cold-0", size_bytes=VOLUME_BYTES, storage_class=self.policy
        )
        document = {
            "apiVersion": field_types.API_VERSION,
            "kind": definition.STORAGE_POLICY.kind,
            "metadata": {"name": self.policy},
            "spec": {
                "storageClassName": self.policy,
                "hotPoolSelector": {"matchLabels": {"tier": "hot"}},
                "coldPoolSelector": {"matchLabels": {"tier": "cold"}},
            },
        }
        status, made = plane.request("POST", operator_runs.POLICIES, document)
        assert status == 201, made
        operator_runs.free_lease(plane, self.lease)

    def status(self) -> Any:
        """Of the policy."""
        status, found = self.plane.request("GET", f"{operator_runs.POLICIES}/{self.policy}")
        assert status == 200, found
        return found.get("status", {})

    def step(self) -> str | None:
        """Of the migration, if one is under way."""
        records = self.status().get("migrations", [])
        return records[0]["step"] if records else None

    def outcomes(self) -> list[str]:
        """Of the migrations that ended."""
        return [one["outcome"] for one in self.status().get("migrationHistory", [])]

    @contextlib.asynccontextmanager
    async def manager(self, works_count_max: float = math.inf) -> AsyncIterator[None]:
        """Let the volumes' manager do so many works at most, until the end of the block."""

        async def works() -> None:
            works_count = 0
            while True:
                if works_count < works_count_max:
                    works_count += await asyncio.to_thread(self.cluster.settle, self.volume)
                status = (await asyncio.to_thread(self.cluster.volume, self.volume))["status"]
                states = [one["state"] for one in status["nexus"]["children"]]
                self.whole_counts.append(states.count("CHILD_ONLINE"))
                await asyncio.sleep(0.1)

        worker = asyncio.create_task(works())
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.wait([worker])
            if not worker.cancelled():
                worker.result()

    def told(self) -> list[str]:
        """Reasons of the Events beside the volume."""
        path = (
            f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=pvc-{self.volume}"
        )
        status, found = self.plane.request("GET", path)
        assert status == 200
        return [one["reason"] for one in found["items"]]
