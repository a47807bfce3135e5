"""The parent of a node's processes: starts, watches, restarts and drains them.

It never serves a request and touches no data, so that it has little reason to fail. Its loop is
asyncio's own; the children are executed afresh, never forked.
"""

from __future__ import annotations

import asyncio
import collections.abc
import json
import logging
import os
import signal
import sys
from typing import Final

from couchestor_daemon.app import (
    child,
    child_place,
    child_status,
    control_socket,
    credentials_file,
    departed_devices,
    device_messages,
    drive_counting,
    live_devices,
    service_manager,
    settings,
)
from couchestor_domain import errors

BACKOFF_SECONDS_MIN: Final = 0.2
BACKOFF_SECONDS_MAX: Final = 10.0
HEALTHY_SECONDS: Final = 30.0
"""A child that lived this long has recovered: its next crash waits the least again."""
SILENT_SECONDS_MAX: Final = 20.0
"""A child without a beat for this long hangs, and is killed and restarted."""
CLOSING_SECONDS: Final = 15.0
"""What a child has after the time to drain: to cut off what is left of its requests, settle what
it has begun to commit and close. More than the default deadline of a device that hangs meanwhile.
"""
CONCLUDE_SECONDS_MAX: Final = 30.0
"""The index is synced in it."""
_TICK_SECONDS: Final = 0.5

_log = logging.getLogger("couchestor.supervisor")


def backoff_seconds(failure_streak: int) -> float:
    """Wait before the restart that follows the ``failure_streak``-th crash in a row (from 1)."""
    return float(min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2 ** min(failure_streak - 1, 16)))


class Supervisor:
    """Runs one node until it is told to stop.

    Args:
        told: Settings with concrete ports.
        lock_fds: Device locks; each child inherits them, so a device stays locked while any lives.
        on_ready: Called once, when every child serves for the first time.
        on_child_exit: Called with the name of a child that ended.
        reload: Gives the log level to use from now on (SIGHUP).
        child_module: Module holding ``load``, which imports what a role needs, ``prepare``,
            ``run_worker``, ``run_maintenance`` and ``conclude``, which runs once no other child is
            left after an orderly stop.
    """

    def __init__(
        self,
        told: settings.Settings,
        *,
        root: credentials_file.RootCredentials,
        board: child_status.Board,
        manager: service_manager.ServiceManager,
        lock_fds: collections.abc.Sequence[int] = (),
        environment: collections.abc.Mapping[str, str] | None = None,
        on_ready: collections.abc.Callable[[], None] = lambda: None,
        on_child_exit: collections.abc.Callable[[str], None] = lambda name: None,
        reload: collections.abc.Callable[[], str] | None = None,
        child_module: str = "couchestor_daemon.app.processes",
    ) -> None:
        self._told, self._root, self._board, self._manager = told, root, board, manager
        self._environment = dict(os.environ if environment is None else environment)
        self._on_ready, self._on_child_exit, self._reload = on_ready, on_child_exit, reload
        self._module = child_module
        self._stop = asyncio.Event()
        self._refused = False
        self._forced = False
        self._was_ready = False
        self._manager_knows = False
        self._phase = "preparing"
        self._prepared = asyncio.Event()
        self._devices = live_devices.LiveDevices(
            told,
            self._ask,
            lock_fds=lock_fds,
            departures=departed_devices.board(self._environment),
            verdicts=drive_counting.verdicts(self._environment),
        )
        self._children: list[child_place.ChildPlace] = []
        # The manager's watchdog belongs to this process alone, and so do the root keys.
        for name in (
            *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
            *(credentials_file.ACCESS_KEY_VARIABLE, *credentials_file.SECRET_VARIABLES),
        ):
            self._environment.pop(name, None)

    async def run(self) -> int:
        """Prepare, serve, drain. Returns the exit status for the shell."""
        loop = asyncio.get_running_loop()
        hangup = self._interrupt if sys.stdin and sys.stdin.isatty() else self._hangup
        loop.add_signal_handler(signal.SIGTERM, self._interrupt)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, hangup)
        ticker = loop.create_task(self._tick())
        try:
            preparing = child_place.ChildPlace("prepare", 0)
            serving = [
                *(child_place.ChildPlace("worker", i) for i in range(self._told.worker_count)),
                child_place.ChildPlace("maintenance", 0),
            ]
            self._children = [preparing, *serving]
            # They load while the node is prepared, and get their first order after it.
            keepers = [loop.create_task(self._keep(each)) for each in serving]
            try:
                if not await self._prepare(preparing):
                    return 0 if self._stop.is_set() else 1
                self._children = serving
                self._phase = "starting"
                self._prepared.set()
            finally:
                if not self._prepared.is_set():
                    await _abandon(serving, keepers)
            stopping = loop.create_task(self._stop.wait())
            async with control_socket.serving(self._told.data_dir, self._control):
                await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
            failed = not self._stop.is_set()
            orderly = await self._drain(keepers)
            stopping.cancel()
            for keeper in keepers:
                if not keeper.cancelled() and (exc := keeper.exception()):
                    raise exc
            if orderly and not failed and not self._refused:
                await self._conclude()
            return 1 if failed or self._refused else 0
        finally:
            ticker.cancel()
            self._devices.close()
            for each in self._children:
                each.signal(signal.SIGKILL)

    async def _prepare(self, preparing: child_place.ChildPlace) -> bool:
        code = await self._run_once(preparing)
        self._board.describe(preparing.summary)
        if code not in (0, child.REFUSED_EXIT) and not self._stop.is_set():
            how = child_place.exit_text(code)
            raise errors.NodeError(f"preparing the store failed ({how}); the log above says why")
        return code == 0 and not self._stop.is_set()

    async def _conclude(self) -> None:
        """Have the stop marked as clean. Without the mark a reboot costs a rebuild, no more."""
        concluding = child_place.ChildPlace("conclude", 0)
        self._children = [concluding]
        running = asyncio.create_task(self._run_once(concluding))
        _, late = await asyncio.wait([running], timeout=CONCLUDE_SECONDS_MAX)
        if late:
            concluding.signal(signal.SIGKILL)
        code = await running
        if code != 0:
            _log.warning(
                "the stop is not marked as clean: after a reboot the index is rebuilt",
                extra={"exit": child_place.exit_text(code)},
            )

    async def _keep(self, each: child_place.ChildPlace) -> None:
        while not self._stop.is_set():
            each.state = "starting"
            code = await self._run_once(each)
            self._on_child_exit(each.name)
            each.state = "stopped"
            if self._stop.is_set():
                return
            if code == child.REFUSED_EXIT and not self._was_ready:
                self._refused = True
                return
            each.failure_streak += 1
            each.last_exit = child_place.exit_text(code)
            each.restart_count += 1
            wait = backoff_seconds(each.failure_streak)
            _log.error(
                "child ended, restarting",
                extra={
                    "child": each.name,
                    "exit": each.last_exit,
                    "wait_seconds": wait,
                },
            )
            each.state = "waiting"
            try:
                await asyncio.wait_for(self._stop.wait(), timeout=wait)
            except TimeoutError:
                continue

    async def _run_once(self, each: child_place.ChildPlace) -> int:
        orders_read, orders_write = os.pipe()
        reports_read, reports_write = os.pipe()
        arguments = [
            *(sys.executable, "-m", "couchestor_daemon.app.child"),
            *("--role", each.role, "--slot", str(each.slot)),
            *("--orders-fd", str(orders_read), "--reports-fd", str(reports_write)),
            *("--parent-pid", str(os.getpid()), "--node-module", self._module),
        ]
        try:
            each.process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                pass_fds=(orders_read, reports_write, *self._devices.lock_fds),
            )
        except OSError as exc:
            for fd in (orders_write, reports_read):
                os.close(fd)
            _log.error("cannot start a child", extra={"child": each.name, "reason": str(exc)})
            return -1
        finally:
            os.close(orders_read)
            os.close(reports_write)
        each.orders_fd = orders_write
        reports = asyncio.create_task(self._read_reports(each, reports_read))
        try:
            if each.role in ("worker", "maintenance"):
                await self._prepared.wait()
            each.began = each.last_beat = asyncio.get_running_loop().time()
            self._give_first_order(each)
            code = await each.process.wait()
            await reports
            return code
        finally:
            reports.cancel()
            each.ended()
            os.close(orders_write)

    def _give_first_order(self, each: child_place.ChildPlace) -> None:
        if self._stop.is_set() and each.role != "conclude":
            each.signal(signal.SIGTERM)  # the order to stop came while this one was being started
        # Through a pipe: an environment or command line can be read by others.
        first = {
            "settings": self._devices.told.to_json(),
            "held_devices": sorted(self._devices.held),
            "access_key": self._root.access_key,
            "secret_key": self._root.secret_key,
        }
        each.order(first)

    async def _read_reports(self, each: child_place.ChildPlace, fd: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        pipe = os.fdopen(fd, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while line := (await reader.readline()).decode().strip():
                each.last_beat = loop.time()
                if line == "ready":
                    each.state = "ready"
                    self._note_ready()
                elif line.startswith("answer "):
                    each.answered(line.removeprefix("answer "))
                elif line.startswith("summary "):
                    each.summary = json.loads(line.removeprefix("summary "))
                    if each.role == "maintenance":
                        self._board.describe(each.summary)
        finally:
            transport.close()

    async def _ask(
        self, order: device_messages.DeviceOrder, role: str = ""
    ) -> dict[str, device_messages.DeviceAnswer | None]:
        """Have an order carried out by every child that lives, or by those of one role."""
        asked = [each for each in self._children if role in ("", each.role)]
        answers = await asyncio.gather(*(each.ask(order) for each in asked))
        return {each.name: answer for each, answer in zip(asked, answers, strict=True)}

    async def _control(self, request: control_socket.Request) -> str:
        if self._phase != "serving":
            raise errors.ConfigurationError(
                f"the node is {self._phase}: repeat the command when `couchestor status` says that "
                "it takes requests"
            )
        try:
            return await self._devices.carry_out(request)
        finally:
            self._board.describe(self._devices.summary)

    def _note_ready(self) -> None:
        if self._was_ready or self._stop.is_set():
            return
        if all(each.state == "ready" for each in self._children):
            self._was_ready = True
            self._phase = "serving"
            self._publish()
            self._tell_ready()
            self._on_ready()

    def _tell_ready(self) -> None:
        # Again at the next tick if the manager's queue is full: else the unit is never ready.
        if self._phase == "serving" and not self._manager_knows:
            self._manager_knows = self._manager.ready(f"serving {self._told.endpoint}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        fed = 0.0
        while True:
            self._publish()
            self._tell_ready()
            silent = False
            for each in self._children:
                quiet_seconds = loop.time() - each.last_beat
                if each.process is None or not self._prepared.is_set() or self._stop.is_set():
                    continue
                if quiet_seconds > SILENT_SECONDS_MAX:
                    _log.error("child hangs, killing it", extra={"child": each.name})
                    each.signal(signal.SIGKILL)
                silent = silent or quiet_seconds > SILENT_SECONDS_MAX / 2
                if each.state == "ready" and loop.time() - each.began > HEALTHY_SECONDS:
                    each.failure_streak = 0
            # A child waiting for its restart does not starve the watchdog: one crashing worker
            # must not take the others down with the whole service.
            interval = self._manager.watchdog_seconds
            if interval and not silent and loop.time() - fed >= interval / 3:
                self._manager.feed_watchdog()
                fed = loop.time()
            await asyncio.sleep(_TICK_SECONDS)

    def _publish(self) -> None:
        self._board.update(phase=self._phase, children=[c.status() for c in self._children])

    def _interrupt(self) -> None:
        if self._stop.is_set():
            _log.warning("asked twice, stopping at once")
            self._forced = True
            for each in self._children:
                each.signal(signal.SIGKILL)
            return
        self._stop.set()
        self._phase = "draining"
        self._publish()
        self._manager.stopping()
        for each in self._children:
            each.signal(signal.SIGTERM)

    def _hangup(self) -> None:
        try:
            level = self._reload() if self._reload else self._told.log_level
        except errors.CouchestorError as exc:
            _log.error("reload refused, the old settings stay", extra={"reason": exc.message})
            return
        logging.getLogger().setLevel(level.upper())
        if not self._prepared.is_set():
            return
        for each in self._children:
            each.order({"log_level": level})
            each.signal(signal.SIGHUP)

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> bool:
        """True when every child ended by itself."""
        if not self._stop.is_set():
            self._interrupt()
        # The children cut requests off when the time to drain has passed, and need some more to
        # end in order.
        seconds_max = self._told.drain_seconds + CLOSING_SECONDS
        _, late = await asyncio.wait(keepers, timeout=seconds_max)
        if late:
            _log.warning("drain deadline passed, killing what is left", extra={"left": len(late)})
            for each in self._children:
                each.signal(signal.SIGKILL)
            await asyncio.wait(late)
        return not late and not self._forced


async def _abandon(
    children: list[child_place.ChildPlace], keepers: list[asyncio.Task[None]]
) -> None:
    """End children that have been given nothing to do, and those who keep them."""
    for each in children:
        each.signal(signal.SIGKILL)
    await asyncio.gather(*(each.process.wait() for each in children if each.process))
    for keeper in keepers:
        keeper.cancel()
    await asyncio.gather(*keepers, return_exceptions=True)
