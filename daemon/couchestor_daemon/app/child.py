"""A process below the supervisor: prepare, a gateway worker, maintenance, or conclude.

Two inherited pipes of lines: orders (JSON, first the settings; end of file: the supervisor is
gone, or does without this process), reports (``ready``, ``beat``, ``summary ...``). Errors go to
standard error in one line. What the role needs is imported before the first order is read: it may
come much later, once the node is prepared.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import dataclasses
import importlib
import json
import logging
import os
import signal
import sys
import threading
from typing import Any, Final

import msgspec

from couchestor_daemon.app import credentials_file, device_messages, logs, settings, tls, users_file
from couchestor_domain import errors, ids

REFUSED_EXIT: Final = 3
"""Exit status of a child that refuses to run and has said why."""
BEAT_SECONDS: Final = 1.0
ERROR_LENGTH_MAX: Final = 600
"""Characters of an error in an answer: the line stays below PIPE_BUF whatever they are."""
ANSWER_AGAIN_SECONDS: Final = 0.05
ROLES: Final = ("prepare", "worker", "maintenance", "conclude")

_PR_SET_PDEATHSIG: Final = 1
_log = logging.getLogger("couchestor.child")


class _Reports:
    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def send(self, line: str) -> bool:
        """False when the supervisor does not read: it loses beats, never stalls this process."""
        try:
            os.write(self._fd, line.encode() + b"\n")
        except BlockingIOError:
            return False
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    async def answer(self, answer: device_messages.DeviceAnswer) -> None:
        """Send an answer; it is short enough to be written as a whole or not at all."""
        answer = msgspec.structs.replace(answer, error=answer.error[:ERROR_LENGTH_MAX])
        line = "answer " + msgspec.json.encode(answer).decode()
        while not self.send(line):  # noqa: ASYNC110 - the pipe is not the loop's
            await asyncio.sleep(ANSWER_AGAIN_SECONDS)


def main() -> int:
    """Entry of ``python -m couchestor_daemon.app.child``."""
    parser = argparse.ArgumentParser(prog="couchestor-child", allow_abbrev=False)
    parser.add_argument("--role", required=True, choices=ROLES)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--orders-fd", type=int, required=True)
    parser.add_argument("--reports-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--node-module", required=True)
    arguments = parser.parse_args()
    _die_with(arguments.parent_pid)
    # The terminal sends Ctrl-C to all; draining in order is the supervisor's work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop handles it
    node = importlib.import_module(arguments.node_module)
    node.load(arguments.role)
    orders = os.fdopen(arguments.orders_fd, "rb")
    line = orders.readline()
    if not line:
        return 0
    first: dict[str, Any] = json.loads(line)
    told = settings.Settings.from_json(first["settings"])
    logs.configure(json_lines=told.log_json, level=told.log_level)
    reports = _Reports(arguments.reports_fd)
    try:
        if arguments.role == "prepare":
            reports.send("summary " + json.dumps(_plain(node.prepare(told)), default=str))
            return 0
        if arguments.role == "conclude":
            node.conclude(told)
            return 0
        _run(arguments, node, told, first, orders, reports)
    except errors.CouchestorError as exc:
        logs.complain(exc.message)
        return REFUSED_EXIT
    return 0


def _run(
    arguments: argparse.Namespace,
    node: Any,
    told: settings.Settings,
    first: dict[str, Any],
    orders: Any,
    reports: _Reports,
) -> None:
    import uvloop

    from couchestor_daemon.app import metrics

    metrics.join(_process_name(arguments.role, arguments.slot))

    async def body() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        inbox = device_messages.OrderInbox(
            reports.answer, held=frozenset(map(ids.DeviceId, first["held_devices"]))
        )
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGHUP, tls.reload_all)
        _follow(orders, loop, stop, inbox=inbox)
        beat = loop.create_task(_beat(reports))
        try:
            if arguments.role == "worker":
                root = credentials_file.RootCredentials(
                    access_key=first["access_key"], secret_key=first["secret_key"]
                )
                users = users_file.Users(root, told.users_file)
                loop.add_signal_handler(signal.SIGHUP, _reload, users)
                following = loop.create_task(users.watch())
                try:
                    await node.run_worker(
                        told,
                        slot=arguments.slot,
                        credentials=users,
                        inbox=inbox,
                        ready=lambda: reports.send("ready"),
                        stop=stop,
                    )
                finally:
                    following.cancel()
            else:
                await node.run_maintenance(
                    told,
                    inbox=inbox,
                    ready=lambda: reports.send("ready"),
                    report=lambda facts: reports.send("summary " + json.dumps(facts)),
                    stop=stop,
                )
        finally:
            beat.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


def _reload(users: users_file.Users) -> None:
    tls.reload_all()
    users.reload()


async def _beat(reports: _Reports) -> None:
    while True:
        reports.send("beat")
        await asyncio.sleep(BEAT_SECONDS)


def _follow(
    orders: Any,
    loop: asyncio.AbstractEventLoop,
    stop: asyncio.Event,
    *,
    inbox: device_messages.OrderInbox,
) -> None:
    def read() -> None:
        try:
            for line in orders:
                order = json.loads(line)
                if "log_level" in order:
                    logs.set_level(order["log_level"])
                if "device" in order:
                    told = msgspec.convert(order["device"], device_messages.DeviceOrder)
                    loop.call_soon_threadsafe(inbox.waiting.put_nowait, told)
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:
            pass  # the loop has already closed

    threading.Thread(target=read, name="orders", daemon=True).start()


def _die_with(parent_pid: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the line above took effect.
    if os.getppid() != parent_pid:
        os._exit(1)


def _process_name(role: str, slot: int) -> str:
    return f"worker-{slot}" if role == "worker" else role


def _plain(summary: object) -> object:
    if dataclasses.is_dataclass(summary) and not isinstance(summary, type):
        return dataclasses.asdict(summary)
    return summary if isinstance(summary, dict) else {"summary": str(summary)}


if __name__ == "__main__":
    sys.exit(main())
