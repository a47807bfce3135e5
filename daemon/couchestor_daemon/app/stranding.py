"""What people see of groups that are moved because no device can take the place of a lost one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from couchestor_daemon.app import node_file, settings
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import reclaim
from couchestor_domain import geometry, ids

_log = logging.getLogger("couchestor.moving")


class Stranding:
    """Says it in the log when it begins, changes its cause, or ends; in the status all the time.

    Args:
        wanted: The geometry of new groups while all devices are in service.
        report: Takes what the status shows.
    """

    def __init__(
        self,
        told: settings.Settings,
        media: media_port.Media,
        *,
        wanted: geometry.StripeGeometry,
        report: Callable[[dict[str, object]], None],
    ) -> None:
        self._told = told
        self._media = media
        self._wanted = wanted
        self._report = report
        self._said = ""

    def show(self, progress: reclaim.StrandedProgress) -> None:
        """See ``Reclaim``."""
        shape = geometry.shrink_to_healthy(self._wanted, len(self._media.healthy_devices()))
        lost = sorted(map(self._label, progress.lost_device_ids))
        self._report(
            {
                "moving": {
                    "groups": progress.groups_count,
                    "data_shards": shape.data_shards if shape else 0,
                    "parity_shards": self._wanted.parity_shards,
                    "in_place_of": lost,
                    "waits_for_room": progress.waits_for_room,
                }
            }
        )
        if not progress.groups_count:
            if self._said:
                _log.info("what was stored over lost devices has moved")
            self._said = ""
            return
        cause = f"no device is free to take the place of {', '.join(lost)}"
        if progress.waits_for_room:
            cause += "; it waits for room: delete objects or add devices"
        if cause != self._said:
            self._said = cause
            width = f"{shape.data_shards} + {shape.parity_shards}" if shape else "others"
            _log.warning("moving %d groups to %s: %s", progress.groups_count, width, cause)

    def _label(self, device_id: ids.DeviceId) -> str:
        # Of the file, not of the devices: one that was missing at the start is not among them.
        membership = node_file.load(self._told)
        member = membership.members.get(device_id) if membership else None
        return member.label if member and member.label else str(device_id)
