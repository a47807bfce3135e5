"""Which devices of the node are in service, looked at again and again and told to people.

A device that nobody reads or writes is found gone here; one that hangs is found by commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Final

from couchestor_daemon.adapters import departure_board, directory_device, worker_threads
from couchestor_daemon.app import node_file, settings
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import departures as departures_service
from couchestor_domain import errors, ids

LOOK_SECONDS: Final = 1.0

_log = logging.getLogger("couchestor.devices")


class DevicePresence:
    """The devices of a node as one of its processes sees them.

    Args:
        devices: Of this process, also those that left it; changes while the node serves.
        media: What they are in service of.
        departures: Which devices left in this run, and why; None outside a node.
        report: Takes what has changed: ``device_counts``, ``departed`` and ``missing``.
        measure_free: Takes the id and label of a device and the free bytes below it.
    """

    def __init__(
        self,
        told: settings.Settings,
        devices: dict[ids.DeviceId, directory_device.DirectoryDevice],
        media: media_port.Media,
        *,
        departures: departure_board.DepartureBoard | None,
        report: Callable[[dict[str, object]], None],
        measure_free: Callable[[ids.DeviceId, str, int], None] = lambda device_id, label, free: (
            None
        ),
    ) -> None:
        self._told, self._devices, self._media = told, devices, media
        self._departures = departures
        self._report = report
        self._measure_free = measure_free
        self._reported: dict[str, object] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Look every second until ``stop``."""
        # Of its own, and left behind when a file system hangs: nothing else waits for it.
        threads = worker_threads.WorkerThreads(
            1, "presence", seconds_max=self._told.device_deadline_seconds
        )
        try:
            while not stop.is_set():
                try:
                    self.tell(await threads.run(self.look))
                except worker_threads.OverdueError:
                    _log.warning("looking whether devices are there takes too long; trying again")
                except errors.ConfigurationError as exc:
                    _log.warning("it cannot be told which devices are away: %s", exc)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        finally:
            threads.close()

    def tell(self, found: dict[str, object]) -> None:
        """Report what ``look`` has found, if it is news."""
        if found != self._reported:
            self._reported = found
            self._report(found)

    def look(self) -> dict[str, object]:
        """Take out what has been deleted, then say what is in service. Blocking.

        Raises:
            ConfigurationError: ``node.json`` cannot be read.
        """
        for device_id, device in list(self._devices.items()):
            if departures_service.is_lost(self._media, device_id):
                continue
            try:
                device.check_present()
                with contextlib.suppress(OSError):
                    below = os.statvfs(device.path)
                    free_bytes = below.f_bavail * below.f_frsize
                    self._measure_free(device_id, device.identity.label, free_bytes)
            except errors.DeviceGoneError as exc:
                self._media.report_failure(device_id, exc)
            except errors.DeviceError as exc:
                # For its next command to find out; this is asked again in a second.
                _log.debug("it cannot be told whether a device is there: %s", exc)
        membership = node_file.load(self._told)
        members = {} if membership is None else membership.members
        rows = self._departures.since(0) if self._departures is not None else []
        left = {str(row.device_id): row.reason for row in rows}
        away = [
            device_id
            for device_id in members
            if departures_service.is_lost(self._media, ids.DeviceId(device_id))
        ]
        return {
            "device_counts": {
                "members": len(members),
                "in_service": len(members) - len(away),
                "taking_writes": len(self._media.healthy_devices()),
                "writes_need": max(self._told.parity_shards + 1, self._told.journal_replica_count),
                "losses_survived": self._told.parity_shards,
            },
            "departed": {members[key].label or key: left[key] for key in away if left.get(key)},
            "missing": {
                members[key].label or key: members[key].path for key in away if not left.get(key)
            },
        }
