"""systemd's notification protocol: datagrams to the socket named by NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """Tells the service manager how the daemon does; silent when there is none.

    Source: sd_notify(3), sd_watchdog_enabled(3).
    """

    def __init__(self, environment: Mapping[str, str], *, pid: int | None = None) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL byte of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment, os.getpid() if pid is None else pid)

    @property
    def is_present(self) -> bool:
        """True when a service manager listens."""
        return self._address.startswith(("/", "\0"))

    def notify(self, *assignments: str) -> bool:
        """Send ``KEY=value`` lines.

        Returns:
            False when nobody listens: a daemon must not fail because its manager is gone.
        """
        if not self.is_present:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.connect(self._address)
                sender.send("\n".join(assignments).encode())
            except OSError:
                return False
        return True

    def ready(self, status: str) -> bool:
        """The node serves."""
        return self.notify("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def stopping(self) -> bool:
        """The node drains."""
        return self.notify("STOPPING=1", "STATUS=draining")

    def feed_watchdog(self) -> bool:
        """The node is alive."""
        return self.notify("WATCHDOG=1")


def _watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    try:
        if int(environment.get("WATCHDOG_PID", pid)) != pid:
            return None
        interval_us = int(environment["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return interval_us / 1e6 if interval_us > 0 else None
