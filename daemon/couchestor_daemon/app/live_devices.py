"""Devices that join, retire, leave and come back while the node serves: the supervisor's part.

A process may never put bytes on a device that another process of the node cannot read, so a
device comes into service in two phases: every child opens it and reads from it, and only when all
have answered may any of them give it zones. A child that ends meanwhile opens it when it starts
again.

What the node is after its supervisor died at a line of ``add`` (its children die with it):

    line                                       at the next start
    lock, format, save node.json               see ``device_joining``
    children open it                           a member like any other: all open it
    children employ it                         the same

Of ``remove`` (``retire`` and its undo are one rename on the device, whatever dies):

    line                                       at the next start
    children hold it, index asked              unchanged: it is retiring or missing as before
    strike it off node.json                    not opened; nothing referred to it
    children drop it, lock released            the same

One change at a time; a second is refused while one is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from couchestor_daemon.adapters import (
    departure_board,
    directory_device,
    directory_layout,
    verdict_board,
    worker_threads,
)
from couchestor_daemon.app import (
    control_socket,
    departed_devices,
    device_joining,
    device_leaving,
    device_messages,
    device_set,
    node_file,
    settings,
)
from couchestor_daemon.services import device_use
from couchestor_domain import errors, ids

ANSWER_SECONDS_MAX: Final = 60.0
"""A child that hangs is killed long before."""
STATE_SECONDS_MAX: Final = 3.0
"""Whoever lists devices does not wait for a change that is under way."""

Answers = Mapping[str, device_messages.DeviceAnswer | None]


class AskChildren(Protocol):
    """Has an order carried out by every child, or by those of one role."""

    async def __call__(
        self, order: device_messages.DeviceOrder, role: str = ""
    ) -> Mapping[str, device_messages.DeviceAnswer | None]: ...


class LiveDevices:
    """The devices of a running node, as its next child has to know them.

    Args:
        told: Settings that name every device.
        ask: See ``AskChildren``.
        lock_fds: Locks that are held already.
        departures: Where the children tell each other which devices left them.
        verdicts: Where they tell each other which are not trusted.
    """

    def __init__(
        self,
        told: settings.Settings,
        ask: AskChildren,
        *,
        lock_fds: Iterable[int] = (),
        departures: departure_board.DepartureBoard | None = None,
        verdicts: verdict_board.VerdictBoard | None = None,
    ) -> None:
        self.told = told
        self.held: set[ids.DeviceId] = set()
        """Not opened by every child yet: to be read from, and given no zones."""
        self.summary: dict[str, object] = {}
        """What the last change made of the number of devices."""
        self._ask_children = ask
        self._departures = departures
        self._verdicts = verdicts
        self._locks = list(lock_fds)
        self._threads = worker_threads.WorkerThreads(1, "device-changes")
        self._under_way = ""
        self._numbers = itertools.count(1)
        self._commands: dict[str, Callable[[control_socket.Request], Awaitable[str]]] = {
            "add": self._add,
            "attach": self._attach,
            "retire": self._retire,
            "remove": self._remove,
            "replace": self._replace,
        }

    @property
    def lock_fds(self) -> tuple[int, ...]:
        """For the next child to inherit: a device stays locked while any process lives."""
        return tuple(self._locks)

    async def carry_out(self, request: control_socket.Request) -> str:
        """Carry out a command; returns a line for the person who asked.

        Raises:
            CouchestorError: refused, or stopped half-way, which the message says.
        """
        if request.command == "states":
            return await self._states()
        if request.command == "verdicts":
            return self._told_verdicts()
        command = self._commands.get(request.command)
        if command is None:
            raise errors.ConfigurationError(f"the command {request.command!r} is unknown here")
        if self._under_way:
            raise errors.NodeError(
                f"another change of devices is under way ({self._under_way}): repeat the command "
                "when it has ended"
            )
        self._under_way = f"{request.command} {request.path or request.name}"
        try:
            return await command(request)
        finally:
            self._under_way = ""
            await self._threads.run(self._count)

    async def _add(self, request: control_socket.Request) -> str:
        path = pathlib.Path(request.path)
        if await self._threads.run(self._is_member, path):
            return f"{path} is a device of this node: " + await self._attach(request)
        joined = await self._join(request, path)
        await self._bring_into_service(joined.identity.device_id, joined.path)
        return f"added {joined}; it is in service"

    async def _attach(self, request: control_socket.Request) -> str:
        path = pathlib.Path(request.path)
        device_id = await self._threads.run(self._check_attachable, path)
        answers = await self._order("ask", device_id, path)
        served = [answer.facts.get("in_service") for answer in answers.values() if answer]
        if all(served) and device_id not in self.held:
            raise errors.DuplicateDeviceError(
                f"{path} is a device of this node and in service already"
            )
        identity_label = await self._threads.run(self._take_back, path)
        await self._bring_into_service(device_id, path)
        return f"device {identity_label} at {path} is in service again"

    async def _retire(self, request: control_socket.Request) -> str:
        device_id, line = await self._threads.run(self._write_retiring, request)
        self._demand(await self._order("reread", device_id), line)
        if request.undo:
            # A removal that was refused has had it held.
            self._demand(await self._order("employ", device_id), line)
        return line

    async def _remove(self, request: control_socket.Request) -> str:
        device_id, label = await self._threads.run(self._check_removal, request.name)
        held = f"device {label} is given no zones"
        self._demand(await self._order("hold", device_id), held)
        answers = await self._order("count", device_id, role="maintenance")
        self._demand(answers, held)
        counted = [answer.facts for answer in answers.values() if answer is not None]
        if not counted:
            raise errors.NodeError(
                f"device {label} cannot be taken out now: the maintenance process, which looks "
                "what is on it, is being restarted; repeat the command"
            )
        used = device_use.DeviceUse(**counted[0])
        path = await self._threads.run(self._strike_off, device_id, used)
        line = f"device {label} at {path} is no device of this node any more"
        self._demand(await self._order("drop", device_id), line)
        return line

    async def _replace(self, request: control_socket.Request) -> str:
        path = pathlib.Path(request.path)
        plan = await self._threads.run(self._plan_replacement, request.name, path)
        if not plan.has_joined:
            if plan.is_missing:
                # Whatever is at its path by now: nobody is to see it as the old one any more.
                self._demand(await self._order("drop", plan.old_id), "nothing has changed yet")
            if not request.label:
                request = msgspec.structs.replace(request, label=plan.label_of_new)
            joined = await self._join(request, path)
            await self._bring_into_service(joined.identity.device_id, joined.path)
        begun = f"{path} is in service in place of device {plan.label}"
        if plan.is_missing:
            self._demand(await self._order("drop", plan.old_id), begun)
            return (
                f"{begun}, whose shards are rebuilt; when `couchestor status` tells of no group "
                f"that waits, `couchestor device remove {plan.old_id}` forgets it"
            )
        retiring = control_socket.Request(command="retire", name=plan.old_id)
        return f"{begun}; {await self._retire(retiring)}"

    async def _join(
        self, request: control_socket.Request, path: pathlib.Path
    ) -> device_joining.Joined:
        joined = await self._threads.run(self._join_now, request, path)
        # From here on every child that starts opens it; none may use it before all have.
        self.held.add(joined.identity.device_id)
        self._locks.append(joined.lock_fd)
        self._name(path)
        return joined

    async def _bring_into_service(self, device_id: ids.DeviceId, path: pathlib.Path) -> None:
        half = "it is a member and takes nothing yet; repeat the command"
        self._demand(await self._order("open", device_id, path), half)
        self.held.discard(device_id)
        self._demand(await self._order("employ", device_id), half)

    async def _order(
        self,
        act: str,
        device_id: str,
        path: pathlib.Path | None = None,
        *,
        role: str = "",
        seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> Answers:
        order = device_messages.DeviceOrder(
            next(self._numbers), act, device_id, str(path) if path else ""
        )
        try:
            async with asyncio.timeout(seconds_max):
                return await self._ask_children(order, role)
        except TimeoutError:
            late = device_messages.DeviceAnswer(
                order.number, f"no answer within {seconds_max:.0f} s"
            )
            return {"a process": late}

    @staticmethod
    def _demand(answers: Answers, so_far: str) -> None:
        failed = [
            f"{name}: {answer.error}"
            for name, answer in sorted(answers.items())
            if answer is not None and answer.error
        ]
        if failed:
            raise errors.NodeError(f"{so_far}; but not in every process: {'; '.join(failed)}")

    def _name(self, path: pathlib.Path) -> None:
        if path not in self.told.device_paths:
            self.told = dataclasses.replace(self.told, devices=(*self.told.device_paths, path))

    # -- what blocks, on the thread of changes --

    def _is_member(self, path: pathlib.Path) -> bool:
        try:
            found = directory_layout.read_identity(path).device_id
        except errors.DeviceError:
            return False
        return found in self._membership().members

    def _join_now(
        self, request: control_socket.Request, path: pathlib.Path
    ) -> device_joining.Joined:
        with self._opened(without=path) as node:
            return device_joining.join(
                node,
                path,
                label=request.label,
                failure_domain=request.failure_domain,
                configured=False,
            )

    @contextlib.contextmanager
    def _opened(self, *, without: pathlib.Path | None = None) -> Iterator[device_joining.HeldNode]:
        """The node with the devices that are in service; see ``device_joining.opened``."""
        with device_joining.opened(self._reachable(), without=without) as node:
            yield node

    def _reachable(self) -> settings.Settings:
        return departed_devices.without_departed(self.told, self._membership(), self._departures)

    def _check_attachable(self, path: pathlib.Path) -> ids.DeviceId:
        departed_devices.refuse_stalled(path, self._membership(), self._departures)
        with self._opened(without=path) as node:
            return device_joining.attachable(node, path).device_id

    def _take_back(self, path: pathlib.Path) -> str:
        with self._opened(without=path) as node:
            lock_fd = self._lock(path)
            try:
                identity = device_joining.attach(node, path)
            except BaseException:
                if lock_fd is not None:
                    os.close(lock_fd)
                raise
            if lock_fd is not None:
                self._locks.append(lock_fd)
            if self._departures is not None:
                # Before any child uses it, and after nothing more can refuse it.
                self._departures.take_back(identity.device_id)
        self.held.add(identity.device_id)
        self._name(path)
        return identity.label

    def _lock(self, path: pathlib.Path) -> int | None:
        """None when it is ours already: the lock of a device that left is kept."""
        if self._lock_of(path) is not None:
            return None
        with contextlib.closing(directory_device.open_directory(path)) as device:
            return device.lock()

    def _write_retiring(self, request: control_socket.Request) -> tuple[ids.DeviceId, str]:
        with self._opened() as node:
            device = device_leaving.retire(node, request.name, undo=request.undo)
            identity = device.identity
            staying = device_leaving.staying_count(node, identity.device_id)
        if request.undo:
            return identity.device_id, f"device {identity.label} is in service again"
        return identity.device_id, (
            f"device {identity.label} is retiring: it gets nothing new and what it holds moves "
            f"away, `couchestor status` shows how far that is; when it is empty, `couchestor "
            f"device remove {identity.label}` takes it out"
            f"{device_leaving.narrower(self.told, staying)}"
        )

    def _check_removal(self, name: str) -> tuple[ids.DeviceId, str]:
        with self._opened() as node:
            device_id = device_leaving.member(node, name)
            device_leaving.refuse_removal(node, device_id)
            return device_id, node.membership.members[device_id].label

    def _strike_off(self, device_id: ids.DeviceId, used: device_use.DeviceUse) -> pathlib.Path:
        with self._opened() as node:
            device_leaving.refuse_removal(node, device_id)
            device_leaving.refuse_used(node, device_id, used)
            path = device_leaving.remove(node, device_id)
            left = self._membership()
            present = node.devices.get(device_id)
        if str(path) in left.removed_paths:
            others = tuple(each for each in self.told.device_paths if each != path)
            self.told = dataclasses.replace(self.told, devices=others)
        if present is not None and (lock_fd := self._lock_of(present.path)) is not None:
            self._locks.remove(lock_fd)
            os.close(lock_fd)
        return path

    def _lock_of(self, path: pathlib.Path) -> int | None:
        try:
            there = (path / directory_layout.LOCK).stat()
        except OSError:
            return None
        for fd in self._locks:
            mine = os.fstat(fd)
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return fd
        return None

    def _plan_replacement(self, name: str, path: pathlib.Path) -> device_leaving.Replacement:
        with self._opened(without=path) as node:
            return device_leaving.plan_replacement(node, name, path)

    def _count(self) -> None:
        with contextlib.suppress(errors.CouchestorError):
            membership = self._membership()
            present = device_set.open_all(self._reachable(), membership)
            for device in present.values():
                device.close()
            self.summary = {
                "devices_count": len(present),
                "missing_count": len(membership.members.keys() - present.keys()),
            }

    def _membership(self) -> node_file.Membership:
        membership = node_file.load(self.told)
        assert membership is not None, "a node that runs has members"
        return membership

    async def _states(self) -> str:
        """JSON: id of each member -> the processes in which it is out of service. A process that is
        busy with a change, or hangs, is left out."""
        membership = await self._threads.run(self._membership)
        answers = await asyncio.gather(
            *(
                self._order("ask", device_id, seconds_max=STATE_SECONDS_MAX)
                for device_id in membership.members
            )
        )
        found = {
            device_id: [
                name
                for name, answer in sorted(each.items())
                if answer is not None and answer.facts.get("in_service") is False
            ]
            for device_id, each in zip(membership.members, answers, strict=True)
        }
        return json.dumps(found)

    def _told_verdicts(self) -> str:
        """JSON: id of each device that is not trusted -> how far, and why."""
        found = self._verdicts.read() if self._verdicts is not None else None
        return json.dumps(
            {
                verdict.device_id: [verdict.standing.name.lower(), verdict.text]
                for verdict in (found[1] if found else ())
            }
        )

    def close(self) -> None:
        """End the thread of changes."""
        self._threads.close()
        if self._verdicts is not None:
            self._verdicts.close()
        if self._departures is not None:
            self._departures.close()
