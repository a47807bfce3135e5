"""Media of one process whose parallel writes end in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from tests.simulation import stalled_commands

from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids


class SimulatedMedia(stalled_commands.StallingMedia):
    """Sets of writes end in any order, as on threads.

    Args:
        shuffle: Draws the order in which the commit thread's writes are carried out.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        stalls: stalled_commands.Stalls,
        shuffle: Callable[[Sequence[media_port.ZoneWrite]], Sequence[media_port.ZoneWrite]],
    ) -> None:
        super().__init__(devices, stalls)
        self._shuffle = shuffle

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        return super().write_all_blocking(self._shuffle(writes))

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        ended = await asyncio.gather(
            *(self.write(zone, offset, data, durable=durable) for zone, offset, data in writes),
            return_exceptions=True,
        )
        failures: list[errors.DeviceError] = []
        for outcome in ended:
            if isinstance(outcome, errors.DeviceError):
                failures.append(outcome)
            elif outcome is not None:
                raise outcome
        return failures
