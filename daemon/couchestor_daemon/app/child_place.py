"""One place among the children of a supervisor: the process that fills it and the pipes to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import msgspec

from couchestor_daemon.app import child_status, device_messages


class ChildPlace:
    """What the supervisor knows of one child, over its restarts."""

    def __init__(self, role: str, slot: int) -> None:
        self.role, self.slot = role, slot
        self.name = f"worker-{slot}" if role == "worker" else role
        self.process: asyncio.subprocess.Process | None = None
        self.state = "starting"
        self.restart_count = 0
        self.failure_streak = 0
        self.last_exit = ""
        self.last_beat = 0.0
        self.began = 0.0
        self.summary: dict[str, object] = {}
        self.orders_fd = -1
        self._asked: dict[int, asyncio.Future[device_messages.DeviceAnswer | None]] = {}

    def status(self) -> child_status.ChildStatus:
        """For the board."""
        return child_status.ChildStatus(
            name=self.name,
            state=self.state,
            pid=self.process.pid if self.process else None,
            restart_count=self.restart_count,
            failure_streak=self.failure_streak,
            last_exit=self.last_exit,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def order(self, order: Mapping[str, Any]) -> None:
        """Tell the process something; one that is dead or not there yet is not told."""
        if self.orders_fd >= 0:
            try:
                os.write(self.orders_fd, json.dumps(order).encode() + b"\n")
            except BrokenPipeError:
                return  # it is dead already; its keeper will see

    async def ask(self, order: device_messages.DeviceOrder) -> device_messages.DeviceAnswer | None:
        """Have an order about a device carried out.

        Returns:
            The answer; None when there is no process or it ended before it answered: the next one
            learns everything when it starts.
        """
        if self.orders_fd < 0:
            return None
        answer: asyncio.Future[device_messages.DeviceAnswer | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._asked[order.number] = answer
        try:
            self.order({"device": msgspec.to_builtins(order)})
            return await answer
        finally:
            self._asked.pop(order.number, None)

    def answered(self, line: str) -> None:
        """The process has sent an answer; one that nobody waits for any more is dropped."""
        answer = msgspec.json.decode(line, type=device_messages.DeviceAnswer)
        waiting = self._asked.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def ended(self) -> None:
        """The process has ended: it answers nothing any more."""
        self.orders_fd = -1
        self.process = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_result(None)


def exit_text(code: int) -> str:
    """What people read of how a process ended; ``code`` is negative for a signal."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
