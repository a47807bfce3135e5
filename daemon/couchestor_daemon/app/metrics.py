"""Prometheus metrics of all processes of a node, as one page.

Each child writes its values into memory-mapped files named after its slot, not its pid: a restarted
worker goes on counting where the dead one stopped, and a crash storm leaves no heap of files.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Final

import prometheus_client
import psutil
from prometheus_client import core, multiprocess, registry, values

from couchestor_daemon.app import child_status, figure_files, version
from couchestor_domain import event_publisher, events

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST
DEVICE_SUBJECT: Final = "device "
"""What the subject of a HealthChanged event about a device begins with; its id follows."""
LATENCY_BUCKETS_SECONDS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


def shared_folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Where the processes of a node share what they count; None outside a node."""
    path = environment.get(DIRECTORY_VARIABLE)
    return pathlib.Path(path) if path else None


def clean_directory(path: pathlib.Path) -> None:
    """Empty folder for the files of a new run; figures of an earlier run must not be summed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def join(process_name: str) -> None:
    """Write this process's values under ``process_name``. Call before any metric is defined."""
    if DIRECTORY_VARIABLE in os.environ:
        values.ValueClass = figure_files.values_of(process_name)


def forget_live_values(directory: pathlib.Path, process_name: str) -> None:
    """Drop the gauges of a process that died: what it held, it holds no more."""
    multiprocess.mark_process_dead(process_name, str(directory))  # type: ignore[no-untyped-call]


class NodeMetrics:
    """What the processes of a node measure. One instance per process and registry."""

    def __init__(self, target: registry.CollectorRegistry = registry.REGISTRY) -> None:
        counter, gauge = prometheus_client.Counter, prometheus_client.Gauge
        self.requests = counter(
            "couchestor_requests",
            "S3 requests",
            ["operation", "status"],
            registry=target,
        )
        self.request_seconds = prometheus_client.Histogram(
            "couchestor_request_seconds",
            "Time from request line to last byte",
            ["operation"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=target,
        )
        self.received_bytes = counter(
            "couchestor_received_bytes",
            "Bytes of request bodies as they came: objects with their framing, and documents",
            registry=target,
        )
        self.sent_bytes = counter(
            "couchestor_sent_bytes",
            "Bytes of answers' bodies: objects and documents",
            registry=target,
        )
        self.commits = counter("couchestor_commits", "Durable commits", registry=target)
        self.committed_writes = counter(
            "couchestor_committed_writes",
            "Operations in durable commits; by couchestor_commits: the mean batch",
            registry=target,
        )
        self.stripes = counter("couchestor_stripes", "Stripes made durable", registry=target)
        self.destaged_bytes = counter(
            "couchestor_destaged_bytes", "Bytes moved from the log to stripes", registry=target
        )
        self.compression_payloads = counter(
            "couchestor_compression_payloads",
            "Payloads moved: not tried, tried in vain, or kept compressed",
            ["outcome"],
            registry=target,
        )
        self.compression_saved_bytes = counter(
            "couchestor_compression_saved_bytes",
            "What payloads take less for being compressed",
            registry=target,
        )
        self.degraded_reads = counter(
            "couchestor_degraded_reads", "Reads served by decoding", registry=target
        )
        self.failed_shards = counter(
            "couchestor_failed_shards",
            "Shards that a read found missing or damaged",
            registry=target,
        )
        self.device_healthy = gauge(
            "couchestor_device_healthy",
            "1: the device works, 0: it does not, as the most pessimistic process sees it",
            ["device"],
            multiprocess_mode="livemin",
            registry=target,
        )
        self.device_free_bytes = gauge(
            "couchestor_device_file_system_free_bytes",
            "What is free of the file system below the device; devices that share one share it",
            ["device", "label"],
            multiprocess_mode="livemax",
            registry=target,
        )
        self.device_suspected = gauge(
            "couchestor_device_suspected",
            "0: trusted, 1: suspected and tested, 2: given nothing new",
            ["device"],
            multiprocess_mode="livemax",
            registry=target,
        )
        self.device_seconds = gauge(
            "couchestor_device_seconds",
            "What a command of the device took in the mean of the last window, in all processes",
            ["device", "command"],
            multiprocess_mode="livemax",
            registry=target,
        )
        self.hedged_reads = counter(
            "couchestor_hedged_reads", "Reads that decoded around a slow device", registry=target
        )
        self.hedged_reads_won = counter(
            "couchestor_hedged_reads_won", "Those in which decoding came first", registry=target
        )
        self._by_outcome: dict[tuple[str, int], prometheus_client.Counter] = {}
        self._by_operation: dict[str, prometheus_client.Histogram] = {}

        # Of one process alone: the others hold zeros.
        def of_maintenance(name: str, text: str) -> prometheus_client.Gauge:
            return gauge(name, text, multiprocess_mode="max", registry=target)

        self.checkpoint_sequence = of_maintenance(
            "couchestor_checkpoint_sequence", "Sequence of the newest checkpoint of the index"
        )
        self.checkpoint_bytes = of_maintenance(
            "couchestor_checkpoint_bytes", "Size of one copy of the newest checkpoint"
        )
        self.checkpoint_time = of_maintenance(
            "couchestor_checkpoint_timestamp_seconds", "When the newest checkpoint was complete"
        )
        self.zones_used = gauge(
            "couchestor_zones_used",
            "Zones that are not free, by what they serve as",
            ["role"],
            multiprocess_mode="max",
            registry=target,
        )
        self.zones_free = of_maintenance("couchestor_zones_free", "Zones of present devices free")
        self.zones_reset = counter(
            "couchestor_zones_reset", "Zones emptied and freed", registry=target
        )
        self.reclaimed_bytes = counter(
            "couchestor_reclaimed_bytes", "Bytes that were in zones reset", registry=target
        )
        self.background_pace = of_maintenance(
            "couchestor_background_bytes_per_second",
            "Device I/O that background work is granted now",
        )
        self.log_since_checkpoint_bytes = of_maintenance(
            "couchestor_log_since_checkpoint_bytes", "What a replay would read of the log"
        )
        self.rebuild_groups_waiting = of_maintenance(
            "couchestor_rebuild_groups_waiting", "Stripe groups that lack members, at least"
        )
        self.rebuild_groups_failed = of_maintenance(
            "couchestor_rebuild_groups_failed",
            "Stripe groups that cannot be rebuilt: bytes are lost",
        )
        self.rebuild_left_bytes = of_maintenance(
            "couchestor_rebuild_left_bytes", "What a rebuild has still to write, at most"
        )
        self.rebuilt_bytes = of_maintenance(
            "couchestor_rebuilt_bytes", "Written by rebuilds since the process began"
        )
        self.balance_zones_left = of_maintenance(
            "couchestor_balance_zones_left", "Zones to be moved to emptier devices, about"
        )
        self.retiring_zones_left = of_maintenance(
            "couchestor_retiring_zones_left", "Zones of retiring devices that are not free yet"
        )
        self.moved_members = of_maintenance(
            "couchestor_moved_members",
            "Members of stripe groups copied to other devices since the process began",
        )
        self.moved_bytes = of_maintenance(
            "couchestor_moved_bytes", "Written by those moves since the process began"
        )
        self.lifecycle_actions = counter(
            "couchestor_lifecycle_actions",
            "What lifecycle rules did: versions removed or hidden behind delete markers, delete"
            " markers removed, uploads aborted",
            ["action"],
            registry=target,
        )
        self.lifecycle_removed_bytes = counter(
            "couchestor_lifecycle_removed_bytes",
            "Of the versions that lifecycle rules removed",
            registry=target,
        )
        self.lifecycle_ended_time = of_maintenance(
            "couchestor_lifecycle_ended_timestamp_seconds",
            "When the last whole pass over buckets with lifecycle rules ended",
        )
        self.bucket_log_lines = counter(
            "couchestor_bucket_log_lines",
            "Lines of the logs of buckets that were written, or dropped for want of room or of a"
            " bucket to write to",
            ["outcome"],
            registry=target,
        )
        self.notices_waiting = gauge(
            "couchestor_notices_waiting",
            "Notices of changes that their target has not taken yet",
            ["target"],
            multiprocess_mode="max",
            registry=target,
        )
        self.notices_oldest_seconds = gauge(
            "couchestor_notices_oldest_seconds",
            "How long the oldest of them has been waiting",
            ["target"],
            multiprocess_mode="max",
            registry=target,
        )
        self.notices_lost = gauge(
            "couchestor_notices_lost",
            "Notices that were not kept since the store was made: too many were waiting",
            ["target"],
            multiprocess_mode="max",
            registry=target,
        )
        self.notices_delivered = counter(
            "couchestor_notices_delivered",
            "Notices that their target has taken",
            ["target"],
            registry=target,
        )
        self.notices_failed = counter(
            "couchestor_notices_failed",
            "Attempts to hand over a notice that failed",
            ["target"],
            registry=target,
        )
        self.scrubbed_bytes = of_maintenance(
            "couchestor_scrub_read_bytes", "Read and verified by the present pass of the scrub"
        )
        self.scrub_damaged_shards = of_maintenance(
            "couchestor_scrub_damaged_shards", "Damaged shards the present pass of the scrub found"
        )
        self.scrub_findings = of_maintenance(
            "couchestor_scrub_findings", "What else the present pass of the scrub found wrong"
        )
        self.scrub_ended_time = of_maintenance(
            "couchestor_scrub_ended_timestamp_seconds",
            "When the last whole pass of the scrub ended",
        )

    def observe_request(
        self,
        operation: str,
        status: int,
        *,
        seconds: float,
        received_bytes: int = 0,
        sent_bytes: int = 0,
    ) -> None:
        """Count one finished request."""
        outcome = self._by_outcome.get((operation, status))
        if outcome is None:
            # Kept: finding a labelled child costs more than counting.
            outcome = self.requests.labels(operation, str(status))
            self._by_outcome[operation, status] = outcome
            self._by_operation[operation] = self.request_seconds.labels(operation)
        outcome.inc()
        self._by_operation[operation].observe(seconds)
        if received_bytes:
            self.received_bytes.inc(received_bytes)
        if sent_bytes:
            self.sent_bytes.inc(sent_bytes)


class CountingPublisher:
    """Counts domain events and hands each on. Satisfies the domain's ``EventPublisher``."""

    def __init__(self, counters: NodeMetrics, following: event_publisher.EventPublisher) -> None:
        self._counters = counters
        self._following = following

    def publish(self, event: events.DomainEvent) -> None:
        """Count it, then publish it."""
        counters = self._counters
        match event:
            case events.WriteJournaled(writes_count=count):
                counters.commits.inc()
                counters.committed_writes.inc(count)
            case events.StripeEncoded():
                counters.stripes.inc()
            case events.ZoneReset(reclaimed_bytes=reclaimed_bytes):
                counters.zones_reset.inc()
                counters.reclaimed_bytes.inc(reclaimed_bytes)
            case events.StripeDestaged(data_bytes=data_bytes):
                counters.destaged_bytes.inc(data_bytes)
            case events.DegradedRead():
                counters.degraded_reads.inc()
            case events.ShardFailed():
                counters.failed_shards.inc()
            case events.HealthChanged(subject=subject, healthy=healthy):
                if subject.startswith(DEVICE_SUBJECT):
                    device_id = subject.removeprefix(DEVICE_SUBJECT)
                    counters.device_healthy.labels(device_id).set(healthy)
        self._following.publish(event)


class ChildrenCollector(registry.Collector):
    """The supervisor's own figures: what runs, how often it was restarted, and what it takes."""

    def __init__(self, board: child_status.Board) -> None:
        self._board = board

    def collect(self) -> Iterable[core.Metric]:
        """One sample per child; what a process takes, of those that live."""
        build = core.GaugeMetricFamily("couchestor_build_info", "Always 1", labels=["version"])
        build.add_metric([version.installed()], 1.0)
        yield build
        ready = core.GaugeMetricFamily(
            "couchestor_child_ready", "1: the process serves", labels=["child"]
        )
        restarts = core.CounterMetricFamily(
            "couchestor_child_restarts", "Restarts after a crash", labels=["child"]
        )
        resident = core.GaugeMetricFamily(
            "couchestor_child_resident_bytes", "Memory of the process", labels=["child"]
        )
        spent = core.CounterMetricFamily(
            "couchestor_child_cpu_seconds",
            "Processor time of the process since it began, user and system",
            labels=["child"],
        )
        opened = core.GaugeMetricFamily(
            "couchestor_child_open_files", "Descriptors of the process", labels=["child"]
        )
        for child in self._board.snapshot().children:
            if child.pid is not None:
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(child.pid)
                    times = process.cpu_times()
                    resident.add_metric([child.name], process.memory_info().rss)
                    spent.add_metric([child.name], times.user + times.system)
                    opened.add_metric([child.name], process.num_fds())
            ready.add_metric([child.name], float(child.state == "ready"))
            restarts.add_metric([child.name], float(child.restart_count))
        yield from (ready, restarts, resident, spent, opened)


def page(directory: pathlib.Path, board: child_status.Board) -> bytes:
    """The metrics of all processes in Prometheus' text format."""
    target = registry.CollectorRegistry()
    multiprocess.MultiProcessCollector(target, str(directory))  # type: ignore[no-untyped-call]
    target.register(ChildrenCollector(board))
    return prometheus_client.generate_latest(target)
