"""What a pass costs the operator: ``python -m couchestor_bench.operator_pass --volumes 10000``.

The pass and every adapter are the operator's own; documents come from memory in place of an API
server, heat from a process that answers as Prometheus does. So what is counted is this process's
work, without TLS and JSON of the Kubernetes API. Run it where the extra ``operator`` is installed:
``.venv-kube/bin/python``.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import itertools
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from couchestor_bench import results
from couchestor_domain import errors, events, units
from couchestor_operator.adapters import (
    heat_cache,
    kube_api,
    kube_claims,
    kube_policies,
    kube_pools,
    kube_volumes,
    prometheus,
    prometheus_access,
    prometheus_query,
    system_clock,
)
from couchestor_operator.control import heat
from couchestor_operator.resources import persistent_volume
from couchestor_operator.services import migrator, tiering_pass

NAMESPACE = "mayastor"
NODES_COUNT = 100
VOLUME_BYTES = 10 * units.GIB
MIGRATIONS_COUNT_MAX = 100


class Documents:
    """What the operator asks of ``kube_api.KubeApi`` and ``kube_copy.KubeCopy``, from memory."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, dict[str, Any]]] = {}
        self._versions = itertools.count(1)

    def put(self, plural: str, document: dict[str, Any]) -> None:
        """Have a document."""
        document["metadata"]["resourceVersion"] = str(next(self._versions))
        self.of.setdefault(plural, {})[document["metadata"]["name"]] = document

    async def get(self, kind: kube_api.Kind, name: str) -> kube_api.Document | None:
        """A document of one's own, as a client gets."""
        return copy.deepcopy(self.of[kind.plural].get(name))

    async def listed(self, kind: kube_api.Kind) -> kube_api.Listing:
        """All of them."""
        return kube_api.Listing(documents=list(self.of[kind.plural].values()), version="0")

    async def replace(
        self, kind: kube_api.Kind, document: kube_api.Document, *, part: str = ""
    ) -> kube_api.Document:
        """Over the version that it names."""
        kept = self.of[kind.plural][document["metadata"]["name"]]
        if kept["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            raise errors.VersionConflictError("somebody else was first")
        if part:
            written = {**kept, part: document[part]}
        else:
            written = {**document, **({"status": kept["status"]} if "status" in kept else {})}
        written["metadata"] = dict(written["metadata"])
        self.put(kind.plural, written)
        return copy.deepcopy(written)


class AtHand:
    """The documents of a kind."""

    def __init__(self, documents: Documents, plural: str) -> None:
        self._documents = documents
        self._plural = plural

    def at_hand(self) -> Mapping[str, kube_api.Document]:
        """All of them."""
        return self._documents.of[self._plural]


class Deaf:
    """Takes events and forgets them."""

    def publish(self, event: events.DomainEvent) -> None:
        """Forget it."""


def fleet(*, volumes_count: int, policies_count: int) -> Documents:
    """That many volumes of two replicas each in cold pools, under that many policies."""
    documents = Documents()
    for index in range(NODES_COUNT):
        for tier in ("cold", "hot"):
            documents.put("diskpools", _pool(f"{tier}-{index}", f"node-{index}", tier))
    for index in range(policies_count):
        documents.put(kube_policies.KIND.plural, _policy(f"policy-{index}"))
    for index in range(volumes_count):
        name = f"00000000-0000-4000-8000-{index:012d}"
        documents.put(kube_claims.KIND.plural, _claim(name, f"policy-{index % policies_count}"))
        documents.put("mayastorvolumes", _volume(name, index))
    return documents


def _pool(name: str, node: str, tier: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"tier": tier}},
        "spec": {"node": node, "disks": ["/dev/sda"]},
        "status": {"cr_state": "Created", "pool_status": "Online", "available": 10 * units.TIB},
    }


def _policy(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1},
        "spec": {
            "storageClassName": name,
            "lowWatermarkIOPS": 500,
            "warmWatermarkIOPS": 0,
            "highWatermarkIOPS": 1000,
            "maxConcurrentMigrations": 10,
            "hotPoolSelector": {"matchLabels": {"tier": "hot"}},
            "coldPoolSelector": {"matchLabels": {"tier": "cold"}},
        },
    }


def _claim(name: str, storage_class: str) -> dict[str, Any]:
    return {
        "metadata": {"name": persistent_volume.name_of(name), "labels": {"team": "a"}},
        "spec": {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"]},
    }


def _volume(name: str, index: int) -> dict[str, Any]:
    homes = (index % NODES_COUNT, (index + 1) % NODES_COUNT)
    uris = [f"nvmf://10.0.0.{home}:8420/nqn.2019-05.io.openebs:{name}" for home in homes]
    return {
        "metadata": {"name": name},
        "spec": {"replicaCount": 2, "requiredBytes": VOLUME_BYTES, "protocol": "nvmf"},
        "status": {
            "size": VOLUME_BYTES,
            "state": "healthy",
            "replicas": [
                {"node": f"node-{home}", "pool": f"cold-{home}", "uri": uri}
                for home, uri in zip(homes, uris, strict=True)
            ],
            "nexus": {"children": [{"uri": uri, "state": "CHILD_ONLINE"} for uri in uris]},
        },
    }


async def measure(url: str, documents: Documents, *, rounds_count: int) -> dict[str, object]:
    """Make that many passes; processor seconds of this process and its memory."""
    before_bytes = _peak_bytes()
    clock = system_clock.SystemClock()
    cpu_seconds: list[float] = []
    longest_block_seconds = 0.0
    summaries: list[tiering_pass.Summary] = []
    api = cast(Any, documents)
    async with prometheus.opened(
        prometheus_access.Access(url=url, deadline_seconds=120),
        prometheus_query.OPENEBS,
        trust=heat.Trust(),
        clock=clock,
    ) as source:
        manager = kube_volumes.KubeVolumes(
            api,
            namespace=NAMESPACE,
            watched=cast(Any, AtHand(documents, "mayastorvolumes")),
            claims=kube_claims.KubeClaims(
                api, cast(Any, AtHand(documents, kube_claims.KIND.plural))
            ),
            pools=kube_pools.KubePools(api, namespace=NAMESPACE),
        )
        policies = kube_policies.KubePolicies(
            api, cast(Any, AtHand(documents, kube_policies.KIND.plural))
        )
        mover = migrator.Migrator(
            manager=manager,
            policies=policies,
            time=clock,
            publisher=Deaf(),
            new_id=lambda: uuid.uuid4().hex,
        )
        for _ in range(rounds_count):
            passes = tiering_pass.TieringPass(
                manager=manager,
                policies=policies,
                # Anew for each pass: each one pays for the heat that it decides on.
                metrics=heat_cache.HeatCache(source, clock),
                time=clock,
                mover=mover,
                migrations_count_max=MIGRATIONS_COUNT_MAX,
            )
            running = asyncio.ensure_future(passes.run())
            started_seconds, turn_seconds = time.process_time(), time.perf_counter()
            while not running.done():
                await asyncio.sleep(0.001)
                longest_block_seconds = max(
                    longest_block_seconds, time.perf_counter() - turn_seconds
                )
                turn_seconds = time.perf_counter()
            summaries.append(running.result())
            cpu_seconds.append(time.process_time() - started_seconds)
    if summaries[0].begun_count != MIGRATIONS_COUNT_MAX or summaries[-1].faults:
        raise SystemExit(f"a pass did not do what it was to do: {summaries}")
    return {
        "volumes": len(documents.of["mayastorvolumes"]),
        "policies": len(documents.of[kube_policies.KIND.plural]),
        "begun": [summary.begun_count for summary in summaries],
        "cpu_seconds_max": max(cpu_seconds),
        "cpu_seconds": cpu_seconds,
        "longest_block_seconds": longest_block_seconds,
        "resident_with_documents_mib": before_bytes / units.MIB,
        "resident_peak_mib": _peak_bytes() / units.MIB,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units.KIB


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(description="What one pass over a fleet costs the operator.")
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args(arguments)
    command = [sys.executable, "-m", "couchestor_bench.heat", "--serve"]
    with subprocess.Popen(
        [*command, "--volumes", str(told.volumes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        documents = fleet(volumes_count=told.volumes, policies_count=told.policies)
        figures = asyncio.run(measure(url, documents, rounds_count=told.rounds))
        server.stdin.close()
    for name, value in figures.items():
        print(f"{name:>28} {value}")
    print(f"\nraw: {results.write('operator-pass', figures)}")


if __name__ == "__main__":
    main()
