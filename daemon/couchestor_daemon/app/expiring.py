"""The work that puts lifecycle rules into effect, and what people see of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from couchestor_daemon.adapters import system_clock
from couchestor_daemon.app import metrics, node, settings
from couchestor_daemon.services import expiration
from couchestor_daemon.services.catalogue import expiry
from couchestor_domain import lifecycle, units, version_ids


def work(
    parts: node.Node,
    told: settings.Settings,
    *,
    pace: Callable[[int], Awaitable[None]],
    measured: metrics.NodeMetrics,
) -> expiration.Expiration:
    """The work of the process that ``parts`` are of."""

    def count(done: Sequence[expiry.Expired]) -> None:
        for each in done:
            action = "hidden" if each.is_hidden else _ACTIONS[each.candidate.kind]
            measured.lifecycle_actions.labels(action).inc()
            if action == "removed":
                measured.lifecycle_removed_bytes.inc(each.size_bytes)

    return expiration.Expiration(
        index=parts.index,
        submit=parts.commits.submit,
        publisher=parts.publisher,
        clock=system_clock.SystemClock(),
        draw=lambda: secrets.token_bytes(version_ids.RANDOM_BYTES),
        pace=pace,
        interval_seconds=told.lifecycle_interval_seconds,
        calendar=calendar_of(told),
        on_done=count,
        on_pass=lambda: measured.lifecycle_ended_time.set(time.time()),
    )


def calendar_of(told: settings.Settings) -> lifecycle.Calendar:
    """How long a day of rules is."""
    if not told.lifecycle_debug_day_seconds:
        return lifecycle.REAL_DAYS
    return lifecycle.Calendar(round(told.lifecycle_debug_day_seconds * units.NS_PER_SECOND))


_ACTIONS: Final = {
    expiry.Kind.CURRENT: "removed",
    expiry.Kind.NONCURRENT: "removed",
    expiry.Kind.MARKER: "marker_removed",
    expiry.Kind.UPLOAD: "upload_aborted",
}
