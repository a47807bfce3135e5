"""What brings members of groups back or moves them, as the maintenance process runs it: rebuild,
scrub, moves between devices; and what people see of it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice, system_clock
from couchestor_daemon.app import metrics, node, settings
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    background,
    member_moves,
    rebuild,
    repair_tools,
    scrub,
    stripe_assembly,
)
from couchestor_domain import geometry, units

POOL_BYTES_MIN: Final = 64 * units.MIB
"""What the works may hold together. Enough for all groups that are rebuilt at once with stripes of
up to 4 MiB; with longer ones fewer of them go on at a time."""
REPORT_SECONDS: Final = 2.0
"""Between reports of what changes all the time."""

Report = Callable[[dict[str, object]], None]


class Repairing:
    """The works that find and bring back what media have lost, and that move what they hold.

    Args:
        report: Told what people should see of it.
        measured: The counters of this process.
    """

    def __init__(
        self,
        told: settings.Settings,
        parts: node.Node,
        *,
        pace: repair_tools.Pace,
        report: Report,
        measured: metrics.NodeMetrics,
    ) -> None:
        self._told = told
        self._parts = parts
        self._report = report
        self._measured = measured
        self._reported_seconds: dict[str, float] = {}
        shape = geometry.StripeGeometry(told.data_shards, told.parity_shards)
        stripe_bytes = stripe_assembly.memory_bytes(shape, told.stripe_bytes)
        self._tools = repair_tools.Tools(
            index=parts.index,
            media=parts.media,
            # Of its own: what is being repaired must not take the memory of commits.
            pool=buffers.BufferPool(max(POOL_BYTES_MIN, 4 * stripe_bytes)),
            codecs=codec_choice.by_id,
            run_codec=parts.codec_threads.run,
            run_blocking=parts.codec_threads.run,
            pace=pace,
        )

        self._scrubbing = self._scrub() if told.scrub_period_seconds else None
        self.rebuild = rebuild.Rebuild(
            self._tools,
            submit=parts.commits.submit,
            reserve_zones_count=told.reserve_zones_count,
            delay_seconds=told.rebuild_delay_seconds,
            publisher=parts.publisher,
            now_seconds=time.monotonic,
            now_ns=system_clock.SystemClock().now_ns,
            report=self._show_rebuild,
            on_repaired=self._scrubbing.repaired if self._scrubbing else lambda count: None,
        )
        self.moves = member_moves.MemberMoves(
            self._tools,
            zones=self.rebuild.zones,
            wanted=shape,
            reserve_zones_count=told.reserve_zones_count,
            limits=member_moves.Limits(
                gap_percent=told.balance_gap_percent, dead_percent=told.reclaim_dead_percent
            ),
            must_wait=lambda: self.rebuild.progress.groups_waiting_count > 0,
            publisher=parts.publisher,
            now_seconds=time.monotonic,
            report=self._show_moves,
        )

    def works(self) -> list[background.BackgroundWork]:
        """Rebuild, moves; and the scrub, unless it is turned off."""
        found: list[background.BackgroundWork] = [self.rebuild, self.moves]
        if self._scrubbing is not None:
            found.append(self._scrubbing)
        return found

    def _scrub(self) -> scrub.Scrub:
        return scrub.Scrub(
            self._tools,
            submit=self._parts.commits.submit,
            period_seconds=self._told.scrub_period_seconds,
            publisher=self._parts.publisher,
            now_seconds=time.monotonic,
            now_ns=system_clock.SystemClock().now_ns,
            report=self._show_scrub,
        )

    def _show_rebuild(self, progress: rebuild.Progress) -> None:
        self._measured.rebuild_groups_waiting.set(progress.groups_waiting_count)
        self._measured.rebuild_groups_failed.set(progress.groups_failed_count)
        self._measured.rebuild_left_bytes.set(progress.left_bytes)
        self._measured.rebuilt_bytes.set(progress.done_bytes)
        self._tell(
            "rebuild",
            {
                "groups_waiting": progress.groups_waiting_count,
                "groups_rebuilt": progress.groups_rebuilt_count,
                "groups_failed": progress.groups_failed_count,
                "done_bytes": progress.done_bytes,
                "left_bytes": progress.left_bytes,
                "seconds_left": round(progress.seconds_left),
            },
            at_once=not progress.groups_waiting_count,
        )

    def _show_moves(self, progress: member_moves.Progress) -> None:
        self._measured.balance_zones_left.set(progress.balance_zones_count)
        self._measured.retiring_zones_left.set(sum(progress.zones_left.values()))
        self._measured.moved_members.set(progress.moved_count)
        self._measured.moved_bytes.set(progress.moved_bytes)
        self._tell(
            "balance",
            {
                "zones_left": progress.balance_zones_count,
                "draining": {
                    device.identity.label: progress.zones_left.get(device_id, 0)
                    for device_id, device in self._parts.devices.items()
                    if device.identity.retiring
                },
                "members_moved": progress.moved_count,
                "moved_bytes": progress.moved_bytes,
                "groups_failed": progress.failed_count,
            },
            at_once=not progress.balance_zones_count and not any(progress.zones_left.values()),
        )

    def _show_scrub(self, record: media_records.ScrubRecord) -> None:
        counts, last = record.counts, record.last
        newest = counts if counts.ended_ns else last
        self._measured.scrubbed_bytes.set(counts.read_bytes)
        self._measured.scrub_damaged_shards.set(counts.damaged_count)
        self._measured.scrub_findings.set(counts.findings_count)
        self._measured.scrub_ended_time.set(newest.ended_ns / units.NS_PER_SECOND)
        self._tell(
            "scrub",
            {
                "now": _plain(counts),
                "last": _plain(last),
                "shards_rebuilt_since": record.repaired_count,
            },
            at_once=bool(counts.ended_ns),
        )

    def _tell(self, name: str, facts: dict[str, object], *, at_once: bool) -> None:
        """Report, but what changes all the time only every few seconds."""
        now = time.monotonic()
        if at_once or now >= self._reported_seconds.get(name, 0.0) + REPORT_SECONDS:
            self._reported_seconds[name] = now
            self._report({name: facts})


def _plain(counts: media_records.ScrubCounts) -> dict[str, object]:
    return {
        "began_at": _time(counts.started_ns),
        "ended_at": _time(counts.ended_ns),
        "read_bytes": counts.read_bytes,
        "shards_verified": counts.shards_count,
        "shards_damaged": counts.damaged_count,
        "shards_rebuilt": counts.repaired_count,
        "other_findings": counts.findings_count,
    }


def _time(at_ns: int) -> str:
    if not at_ns:
        return ""
    at = datetime.datetime.fromtimestamp(at_ns / units.NS_PER_SECOND, datetime.UTC)
    return at.isoformat(timespec="seconds")
