"""What the supervisor knows of its children, readable from the threads that serve it."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import time
from collections.abc import Iterable
from typing import Final

from couchestor_daemon.app import node_warnings

TICK_SECONDS_MAX: Final = 10.0
STORM_RESTART_COUNT: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChildStatus:
    """One child. ``state`` is starting, ready, waiting (to be restarted) or stopped."""

    name: str
    state: str
    pid: int | None
    restart_count: int
    failure_streak: int
    last_exit: str

    @property
    def is_storming(self) -> bool:
        """Crashing again and again without a healthy spell between."""
        return self.failure_streak >= STORM_RESTART_COUNT


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The node at one moment. ``phase`` is preparing, starting, serving or draining."""

    phase: str
    children: tuple[ChildStatus, ...]
    tick_age_seconds: float
    data_dir: str
    summary: dict[str, object]
    admin_url: str = ""

    @property
    def live(self) -> bool:
        """The supervisor's loop turns."""
        return self.tick_age_seconds < TICK_SECONDS_MAX

    @property
    def reasons(self) -> list[str]:
        """Why the node should get no requests; empty when it should."""
        if self.phase != "serving":
            return [f"the node is {self.phase}"]
        if not any(c.state == "ready" for c in self.children if c.name.startswith("worker")):
            return ["no worker is ready"]
        return node_warnings.reasons_not_to_serve(self.summary)

    @property
    def warnings(self) -> list[str]:
        """What a person should look at though the node serves."""
        return node_warnings.warnings(self.summary) + [
            f"{c.name} keeps crashing ({c.failure_streak} times in a row, last: {c.last_exit})"
            if c.is_storming
            else f"{c.name} is {c.state}"
            for c in self.children
            if c.is_storming or c.state != "ready"
        ]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "phase": self.phase,
            "data_dir": self.data_dir,
            "admin_url": self.admin_url,
            "ready": not self.reasons,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "children": [dataclasses.asdict(child) for child in self.children],
            "node": self.summary,
        }


class Board:
    """Where the supervisor writes and the server threads read.

    Args:
        data_dir: Of the node, by which those who ask tell it from others.
        admin_url: Where its tenants are administered.
    """

    def __init__(self, *, data_dir: pathlib.Path = pathlib.Path(), admin_url: str = "") -> None:
        self._data_dir = str(data_dir)
        self._admin_url = admin_url
        self._lock = threading.Lock()
        self._phase = "preparing"
        self._children: tuple[ChildStatus, ...] = ()
        self._summary: dict[str, object] = {}
        self._tick = time.monotonic()

    def update(self, *, phase: str, children: Iterable[ChildStatus]) -> None:
        """Publish the present state; proves by being called that the supervisor is alive."""
        with self._lock:
            self._phase, self._children = phase, tuple(children)
            self._tick = time.monotonic()

    def describe(self, summary: dict[str, object]) -> None:
        """Publish what preparing found, or add what another child tells of the node."""
        with self._lock:
            self._summary = {**self._summary, **summary}

    def snapshot(self) -> Snapshot:
        """The latest state."""
        with self._lock:
            return Snapshot(
                phase=self._phase,
                children=self._children,
                tick_age_seconds=time.monotonic() - self._tick,
                data_dir=self._data_dir,
                summary=self._summary,
                admin_url=self._admin_url,
            )
