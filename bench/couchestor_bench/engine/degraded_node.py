"""Reads against a node of its own, with all devices and with some taken away under it."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Final

from couchestor_bench import degraded, failures, server_process
from couchestor_bench.engine import bench_run
from couchestor_bench.reports import document
from couchestor_bench.workload import plan as plans
from couchestor_domain import geometry

_LEFT_ALONE: Final = {"reclaim-dead-percent": "100", "rebuild-delay-seconds": "86400"}
"""Nothing is moved off a device that is gone, so the loss stays as bad as it was."""


@contextlib.contextmanager
def node(
    shape: geometry.StripeGeometry, folder: pathlib.Path | None
) -> Iterator[server_process.ServerProcess]:
    """A node over as many folders as a stripe has shards, which is gone afterwards.

    Args:
        folder: Where it keeps its data meanwhile; None: where temporary files are.

    Raises:
        BenchmarkError: It does not start.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="couchestor-bench-") as place:
            data_dir = pathlib.Path(place) / "node"
            devices = [data_dir / "devices" / f"d{index}" for index in range(shape.shards_count)]
            for device in devices:
                device.mkdir(parents=True)
            server = server_process.couchestor(
                data_dir,
                options={
                    **_LEFT_ALONE,
                    "devices": ",".join(map(str, devices)),
                    "data-shards": str(shape.data_shards),
                    "parity-shards": str(shape.parity_shards),
                },
            )
            with server:
                yield server
    except OSError as exc:
        raise failures.BenchmarkError(
            f"cannot keep a node in {exc.filename or folder}: {exc.strerror or exc}"
        ) from exc
    except RuntimeError as exc:
        raise failures.BenchmarkError(f"the node of the benchmark failed: {exc}") from exc


def measure(
    server: server_process.ServerProcess,
    plan: plans.Plan,
    *,
    audience: bench_run.Audience,
    away_count: int,
    label: str,
) -> tuple[document.Document, document.Document]:
    """The same reads of the same objects, first with all devices, then with fewer.

    The devices that hold the most data shards are deleted: the worst that so many can do.

    Raises:
        BenchmarkError: As ``bench_run.prepared``; the devices cannot be deleted.
    """
    with bench_run.prepared(plan, audience=audience, server_pid=server.pid, keep=True) as prepared:
        healthy = prepared.measure(label=f"{label} all there", server={"devices_away": 0})
        shards = degraded.data_shards_by_device(server.data_dir)
        for victim, _ in shards.most_common(away_count):
            server_process.delete_in_use(victim)
        wounded = prepared.measure(
            label=f"{label} {away_count} away", server={"devices_away": away_count}
        )
    return healthy, wounded
