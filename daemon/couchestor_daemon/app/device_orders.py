"""What a child does when the supervisor tells it that the node's devices change.

    open      open the device and read from it, but give it no zones
    employ    every process can read it: it may be given zones
    hold      give it no more zones; answered once nothing decided before is still under way
    reread    it retires, or does so no more
    drop      close it: it is no member any more, or gone
    ask       whether it is in service here
    count     what the index says is on it

Beside that it goes by what the process that watches the devices says of them.

Every order may come twice, and is answered when it is carried out: the supervisor goes on only when
all have answered. Whoever dies instead learns the present state when it starts again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import descriptors, device_messages, node
from couchestor_daemon.services import commit_log, device_use
from couchestor_domain import errors, ids

_log = logging.getLogger("couchestor.devices")

VERDICTS_SECONDS: Final = 1.0

Facts = dict[str, Any]


class DeviceOrders:
    """Carries out orders, one after the other, on the parts of a process.

    Args:
        on_open: Told of a device that is opened anew, before it is in service: what was known of
            its content counts no more.
    """

    def __init__(
        self,
        parts: node.Node,
        inbox: device_messages.OrderInbox,
        *,
        on_open: Callable[[ids.DeviceId], None] = lambda device_id: None,
    ) -> None:
        self._parts = parts
        self._inbox = inbox
        self._on_open = on_open
        self._acts: dict[str, Callable[[device_messages.DeviceOrder], Awaitable[Facts]]] = {
            "open": self._open,
            "employ": self._employ,
            "hold": self._hold,
            "reread": self._reread,
            "drop": self._drop,
            "ask": self._ask,
            "count": self._count,
        }
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leaving())
            group.create_task(self._follow_verdicts())
            while True:
                order = await self._inbox.waiting.get()
                await self._inbox.answer(await self._carry_out(order))

    async def _keep_leaving(self) -> None:
        """Beside the orders: a stripe that is being written may take long."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._leave_unfit()
            await self._pass_commits()

    async def _follow_verdicts(self) -> None:
        """Give devices that are mistrusted nothing new, and others again."""
        while True:
            if self._parts.mistrust.look():
                self._parts.media.mistrust(self._parts.mistrust.held())
                self._changed.set()
            await asyncio.sleep(VERDICTS_SECONDS)

    async def _leave_unfit(self) -> None:
        try:
            await self._parts.groups.leave_unfit()
        except errors.CouchestorError as exc:
            _log.warning("groups on devices that changed are left at the next stripe: %s", exc)

    async def _pass_commits(self) -> None:
        """Until every commit submitted before has ended; the log leaves a segment it is not to go
        on with. Whether this one succeeds does not matter for either."""
        nothing = commit_log.Operation(
            apply=lambda txn, _: None, uses_reserve=True, waits_for_room=False
        )
        try:
            await self._parts.commits.submit(nothing)
        except errors.CouchestorError as exc:
            _log.warning("a commit without content failed: %s", exc)

    async def _carry_out(self, order: device_messages.DeviceOrder) -> device_messages.DeviceAnswer:
        act = self._acts.get(order.act)
        if act is None:
            return device_messages.DeviceAnswer(
                order.number, f"the order {order.act!r} is unknown here"
            )
        try:
            return device_messages.DeviceAnswer(order.number, "", await act(order))
        except errors.CouchestorError as exc:
            return device_messages.DeviceAnswer(order.number, exc.message)

    async def _open(self, order: device_messages.DeviceOrder) -> Facts:
        device_id, path = ids.DeviceId(order.device_id), pathlib.Path(order.path)
        present = self._parts.devices.get(device_id)
        if present is not None and self._is_in_service(device_id) and present.is_folder_of(path):
            await self._parts.codec_threads.run(present.reread_identity)
            return {}
        opened = await self._parts.codec_threads.run(
            functools.partial(
                directory_device.open_directory,
                path,
                open_files_count_max=descriptors.files_per_device(len(self._parts.devices) + 1),
            )
        )
        assert isinstance(opened, directory_device.DirectoryDevice), opened
        if opened.identity.device_id != device_id:
            opened.close()
            raise errors.ForeignDeviceError(
                f"{path} carries device {opened.identity.label} ({opened.identity.device_id}) by "
                f"now, not {device_id}"
            )
        # What was being written when it left is not gone on with, wherever its pointers stand now.
        self._parts.media.remove(device_id)
        await self._leave_unfit()
        await self._pass_commits()
        self._park(device_id)
        self._on_open(device_id)
        self._parts.devices[device_id] = opened
        self._parts.media.admit(self._parts.drives.measured(opened))
        return {}

    async def _employ(self, order: device_messages.DeviceOrder) -> Facts:
        device_id = ids.DeviceId(order.device_id)
        self._parts.media.employ(device_id)
        self._parts.counters.device_healthy.labels(device_id).set(True)
        self._changed.set()
        return {}

    async def _hold(self, order: device_messages.DeviceOrder) -> Facts:
        self._parts.media.hold(ids.DeviceId(order.device_id))
        await self._pass_commits()
        self._changed.set()
        return {}

    async def _reread(self, order: device_messages.DeviceOrder) -> Facts:
        device = self._parts.devices.get(ids.DeviceId(order.device_id))
        if device is not None and self._is_in_service(device.identity.device_id):
            await self._parts.codec_threads.run(device.reread_identity)
            self._parts.media.refresh()
            self._changed.set()
        return {}

    async def _drop(self, order: device_messages.DeviceOrder) -> Facts:
        device_id = ids.DeviceId(order.device_id)
        self._parts.media.remove(device_id)
        self._park(device_id)
        self._changed.set()
        return {}

    async def _ask(self, order: device_messages.DeviceOrder) -> Facts:
        device_id = ids.DeviceId(order.device_id)
        device = self._parts.devices.get(device_id)
        return {
            "in_service": device is not None
            and self._is_in_service(device_id)
            and device.is_folder_of(pathlib.Path(order.path or device.path))
        }

    async def _count(self, order: device_messages.DeviceOrder) -> Facts:
        found = await self._parts.codec_threads.run(
            device_use.count, self._parts.index, ids.DeviceId(order.device_id)
        )
        assert isinstance(found, device_use.DeviceUse), found
        return found._asdict()

    def _is_in_service(self, device_id: ids.DeviceId) -> bool:
        try:
            self._parts.media.device(device_id)
        except errors.DeviceGoneError:
            return False
        return True

    def _park(self, device_id: ids.DeviceId) -> None:
        present = self._parts.devices.pop(device_id, None)
        if present is not None:
            self._parts.parked.append(present)
