"""What a process counts about the devices of its node, and what it goes by of those mistrusted."""

from __future__ import annotations

import pathlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from couchestor_daemon.adapters import drive_board, measured_device, verdict_board
from couchestor_daemon.app import metrics
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import drive_verdicts
from couchestor_domain import event_publisher, events, ids

PLACES_KEPT_MAX: Final = 4096
UNREADABLE: Final = "cannot be read"
"""What the reason of a failed shard begins with of which no bytes came: counted where it was read.
"""


def verdicts(environment: Mapping[str, str]) -> verdict_board.VerdictBoard | None:
    """Where the process that watches the devices tells which are not trusted; None outside a
    node.

    Args:
        environment: Of its processes.
    """
    folder = metrics.shared_folder(environment)
    return verdict_board.VerdictBoard(folder) if folder else None


class DriveCounting:
    """The counters of one process.

    Args:
        folder: Shared by the processes of a node; None: nothing is counted.
        writer: Names the process.

    Raises:
        IndexFullError: no room for the counters.
    """

    def __init__(self, folder: pathlib.Path | None, writer: str) -> None:
        self._recorder = drive_board.DriveRecorder(folder, writer) if folder else None
        self._places: OrderedDict[tuple[int, int, int], None] = OrderedDict()

    def measured(self, device: device_port.ZonedDevice) -> device_port.ZonedDevice:
        """The device as the media of the process are to use it."""
        if self._recorder is None:
            return device
        return measured_device.MeasuredDevice(device, self._recorder.of(device.identity.device_id))

    def wrong_place(self, event: events.ShardFailed) -> None:
        """Count a place of a device that did not hold what was written there, once."""
        if self._recorder is None or event.reason.startswith(UNREADABLE):
            return
        place = (event.group_id, event.stripe_offset_bytes, event.shard_index)
        if place in self._places:
            self._places.move_to_end(place)
            return
        self._places[place] = None
        if len(self._places) > PLACES_KEPT_MAX:
            self._places.popitem(last=False)
        self._recorder.of(event.device_id).wrong_place()


class FaultPublisher:
    """Counts wrong places and hands every event on. Satisfies the domain's ``EventPublisher``."""

    def __init__(self, counting: DriveCounting, following: event_publisher.EventPublisher) -> None:
        self._counting = counting
        self._following = following

    def publish(self, event: events.DomainEvent) -> None:
        """Count it, then publish it."""
        if isinstance(event, events.ShardFailed):
            self._counting.wrong_place(event)
        self._following.publish(event)


class Mistrust:
    """The devices that the node mistrusts, as far as this process has heard.

    Args:
        folder: Shared by the processes of a node; None: all are trusted.

    Raises:
        IndexFullError: no room for the board.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._board = verdict_board.VerdictBoard(folder) if folder else None
        self._seen_version = 0
        self._slow: frozenset[ids.DeviceId] = frozenset()
        self._held: frozenset[ids.DeviceId] = frozenset()

    def look(self) -> bool:
        """Whether there is something new."""
        if self._board is None or self._board.version() == self._seen_version:
            return False
        found = self._board.read()
        if found is None:
            return False
        self._seen_version, verdicts = found
        self._slow = frozenset(each.device_id for each in verdicts if each.is_slow)
        self._held = frozenset(
            each.device_id for each in verdicts if each.standing is drive_verdicts.Standing.HELD
        )
        return True

    def slow(self) -> frozenset[ids.DeviceId]:
        """Those that reads do better without."""
        return self._slow

    def held(self) -> frozenset[ids.DeviceId]:
        """Those that are given no zones."""
        return self._held

    def close(self) -> None:
        """Release the board. Idempotent."""
        if self._board is not None:
            self._board.close()
