"""A gateway worker: serves S3 on the port that all workers share."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from couchestor_daemon.adapters import machine_code, md5_lanes, memory_allocator, system_clock
from couchestor_daemon.app import (
    device_messages,
    device_orders,
    metrics,
    node,
    pace_keeping,
    read_reporting,
    settings,
    tls,
)
from couchestor_daemon.services import writer_slots
from couchestor_gateway.edge import server

_log = logging.getLogger("couchestor.worker")

SWITCH_INTERVAL_SECONDS: Final = 0.0005
"""How long a thread waits before it asks for the interpreter. With Python's own 5 ms the commit
thread, back from its writes, waited for whole rounds of the event loop: a tenth of the PUTs."""


async def run(
    told: settings.Settings,
    *,
    slot: int,
    credentials: Any,
    inbox: device_messages.OrderInbox,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Serve S3 until ``stop``, then drain."""
    memory_allocator.keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    counters = metrics.NodeMetrics()
    parts = node.Node(
        told,
        writer=writer_slots.worker(slot),
        counters=counters,
        waits_for_room=True,
        held=inbox.held,
        commit_cpu=slot,
    )
    certificate = (
        tls.ReloadingCertificate(cert=told.tls_cert, key=told.tls_key)
        if told.tls_cert and told.tls_key
        else None
    )
    latencies = pace_keeping.RequestLatencies(slot)
    reads = read_reporting.ReadReporter(
        slot, parts.places_in_use, now=system_clock.SystemClock().monotonic_seconds
    )

    def observe(operation: str, status: int, seconds: float, received: int, sent: int) -> None:
        counters.observe_request(
            operation, status, seconds=seconds, received_bytes=received, sent_bytes=sent
        )
        latencies.observe(seconds, moved_bytes=received + sent)

    lanes = _md5_lanes()
    loop = asyncio.get_running_loop()
    beside = [
        loop.create_task(reads.run()),
        loop.create_task(device_orders.DeviceOrders(parts, inbox).run()),
    ]
    if certificate:
        beside.append(loop.create_task(certificate.watch()))
    try:
        store = await parts.store()
        gateway = server.Gateway(
            store,
            store,
            store,
            credentials,
            region=told.region,
            clock=system_clock.SystemClock(),
            domain=told.domain or None,
            metrics=observe,
            offload=parts.codec_threads.run,
            new_shared_md5=None if lanes is None else lanes.new,
            limits=server.ServerLimits(stall_seconds=told.stall_seconds),
            access_log=told.access_log,
            signature_v2=told.signature_v2,
            notification_targets=frozenset(told.notification_urls),
            log_delivery_seconds=told.bucket_log_seconds,
            log_lines=lambda outcome, count: counters.bucket_log_lines.labels(outcome).inc(count),
        )
        running = await gateway.start(
            told.host,
            told.port,
            reuse_port=True,
            ssl_context=certificate.context if certificate else None,
        )
        ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.tend(stop))
            await stop.wait()
            parts.end_waiting()
        await running.stop(told.drain_seconds)
    finally:
        for task in beside:
            task.cancel()
        await parts.close()
        if lanes is not None:
            lanes.close()
        latencies.close()
        reads.close()


def _md5_lanes() -> md5_lanes.Md5Lanes | None:
    try:
        return md5_lanes.Md5Lanes(md5_lanes.kernel())
    except machine_code.MachineCodeError as exc:
        _log.info("MD5 of bodies is computed one by one, which takes more processor time: %s", exc)
        return None
