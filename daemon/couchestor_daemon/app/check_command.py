"""``couchestor check``: of a stopped node or beside a running one, which it finds out by itself."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TextIO

from couchestor_daemon.adapters import system_clock
from couchestor_daemon.app import (
    data_dir_lock,
    device_listing,
    device_set,
    node_check,
    node_commands,
    node_file,
    preparation,
    settings,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import checkpoint_check, full_check, log_check, pacing
from couchestor_domain import errors, units

LIVE_BYTES_PER_SECOND: Final = 64 * units.MIB
"""Read beside a running node unless told otherwise."""
PAUSE_SECONDS: Final = 2.0
"""Before a second look: longer than what a process may leave half done in media and index."""
PROGRESS_SECONDS: Final = 0.2


class Checked(NamedTuple):
    """What ``check`` has to say, a sentence each."""

    findings: list[str]
    """Damage, and what may become damage: empty when everything verified."""
    notes: list[str]
    """What is left over and harms nothing."""
    repaired: list[str]
    """What was done about it."""


def check(
    told: settings.Settings,
    *,
    repair: bool = False,
    quick: bool = False,
    bytes_per_second: int | None = None,
) -> Checked:
    """Look at devices, log, index and every shard.

    Args:
        repair: Also free zones that nothing owns and drop repairs of groups that are gone.
        quick: Only the tables of the index, and the shards that are known to wait for repair.
        bytes_per_second: Read so much at most; 0: no limit; None: some beside a running node.

    Raises:
        ConfigurationError: there is no node; it is just starting; it runs, or the index is not to
            be trusted, and ``repair`` was asked for.
        DeviceInUseError: another daemon holds a device.
    """
    try:
        with node_commands.stopped(told) as told_all:
            return _of_stopped(
                told_all, repair=repair, quick=quick, bytes_per_second=bytes_per_second or 0
            )
    except data_dir_lock.DataDirInUseError as exc:
        if repair:
            raise errors.ConfigurationError(
                f"the node under {told.data_dir} is running, and repairs by itself what can be "
                "repaired while it runs: `couchestor status` shows what waits for a rebuild. Stop "
                "it to free what `couchestor check` says that nothing owns"
            ) from exc
    rate = LIVE_BYTES_PER_SECOND if bytes_per_second is None else bytes_per_second
    return _of_running(node_file.with_added_devices(told), quick=quick, bytes_per_second=rate)


def _of_stopped(
    told: settings.Settings, *, repair: bool, quick: bool, bytes_per_second: int
) -> Checked:
    devices = device_set.open_all(told, node_file.load(told))
    try:
        repaired = node_check.repair(told, devices) if repair else []
        findings = _of_devices(told)
        if not quick:
            findings += _of_log(told, devices)
        notes: list[str] = []
        if node_check.is_index_trusted(told):
            manner = full_check.Manner(reads_everything=not quick)
            _look(
                told, devices, Checked(findings, notes, repaired), manner, _Pace(bytes_per_second)
            )
        elif preparation.has_index(told):
            findings.append(
                "the index was not synced before the machine stopped, so shards were not compared "
                "with it: start the node, which rebuilds it, and check again"
            )
        return Checked(findings, notes, repaired)
    finally:
        for device in devices.values():
            device.close()


def _of_running(told: settings.Settings, *, quick: bool, bytes_per_second: int) -> Checked:
    """Changes nothing and takes no lock: the node does not notice but for the reads."""
    if not node_check.is_index_trusted(told):
        raise errors.ConfigurationError(
            f"the node under {told.data_dir} is starting and rebuilds its index: check again once "
            "`couchestor status` says that it takes requests"
        )
    devices = device_set.open_all(told, node_file.load(told))
    try:
        index_before = preparation.index_generation(told)
        found = Checked(_of_devices(told), _waiting(told), [])
        manner = full_check.Manner(
            is_running=True,
            reads_everything=not quick,
            pause_seconds=PAUSE_SECONDS,
        )
        _look(told, devices, found, manner, _Pace(bytes_per_second))
        if preparation.index_generation(told) != index_before:
            raise errors.ConfigurationError(
                "the node was started again and has rebuilt its index during the check: check again"
            )
        return found
    finally:
        for device in devices.values():
            device.close()


def _look(
    told: settings.Settings,
    devices: node_check.Devices,
    found: Checked,
    manner: full_check.Manner,
    pace: _Pace,
) -> None:
    try:
        said = node_check.findings(told, devices, manner=manner, pace=pace.take, progress=pace.show)
    finally:
        pace.end()
    for finding in said:
        (found.findings if finding.is_damage else found.notes).append(finding.text)


def _of_devices(told: settings.Settings) -> list[str]:
    return [
        f"device {row.label} at {row.path} is {row.state}: {row.reason}"
        for row in device_listing.survey(told)
        if row.state not in ("present", "retiring")
    ]


def _waiting(told: settings.Settings) -> list[str]:
    index = preparation.open_index(told, read_only=True)
    try:
        with index.read() as reader:
            start, stop = media_records.table_range(media_records.REPAIRS)
            waiting = collections.Counter(
                media_records.unpack(media_records.RepairRecord, value).reason
                for _, value in reader.scan(start, stop)
            )
    finally:
        index.close()
    return [f"{count} shards wait for repair: {reason}" for reason, count in waiting.most_common()]


def _of_log(told: settings.Settings, devices: node_check.Devices) -> list[str]:
    """What a recovery of a stopped node would find, and the copies of checkpoints."""
    findings = log_check.findings(devices)
    records = []
    if preparation.has_index(told):
        findings += _waiting(told)
        index = preparation.open_index(told, read_only=True)
        try:
            with index.read() as reader:
                start, stop = media_records.table_range(media_records.CHECKPOINTS)
                records = [
                    media_records.unpack(media_records.CheckpointRecord, value)
                    for _, value in reader.scan(start, stop)
                ]
        finally:
            index.close()
    return findings + checkpoint_check.findings(devices, records)


class _Pace:
    """How fast the check reads, and a line that tells how far it is, where somebody looks."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        out: TextIO = sys.stderr,
        now_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pacer = pacing.Pacer(bytes_per_second, clock=system_clock.SystemClock())
        self._out = out if out.isatty() else None
        self._now_seconds = now_seconds
        self._shown_at = 0.0
        self._doing = ""
        self._read_bytes = 0

    async def take(self, bytes_count: int) -> None:
        """Wait for the turn of so many bytes."""
        self._read_bytes += bytes_count
        self._draw()
        await self._pacer.take(bytes_count)

    def show(self, doing: str) -> None:
        """What is looked at from now on."""
        self._doing = doing
        self._draw()

    def end(self) -> None:
        """Take the line away."""
        if self._out is not None and self._shown_at:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def _draw(self) -> None:
        now = self._now_seconds()
        if self._out is None or now < self._shown_at + PROGRESS_SECONDS:
            return
        self._shown_at = now
        text = f"{self._doing}, {self._read_bytes // units.MIB} MiB read"
        print(f"\r\x1b[K{text}", end="", file=self._out, flush=True)
