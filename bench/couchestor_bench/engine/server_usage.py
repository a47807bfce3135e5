"""CPU time and resident memory of a server on this machine, by its tree of processes."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

import psutil

from couchestor_bench import failures

_NAMES: Final = ("localhost", "localhost.localdomain")


class Usage(NamedTuple):
    """All processes of the tree together."""

    cpu_seconds: float
    rss_bytes: int
    processes_count: int


@dataclass(slots=True)
class Tree:
    """A process and all that descend from it."""

    pid: int
    name: str

    def usage(self) -> Usage:
        """Now; zeros when it has ended."""
        cpu_seconds, rss_bytes, count = 0.0, 0, 0
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.pid)
            for process in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    rss_bytes += process.memory_info().rss
                    cpu_seconds += times.user + times.system
                    count += 1
        return Usage(cpu_seconds, rss_bytes, count)


def of_pid(pid: int) -> Tree:
    """Raises BenchmarkError when there is no such process."""
    try:
        return Tree(pid, psutil.Process(pid).name())
    except psutil.Error as exc:
        raise failures.BenchmarkError(f"--server-pid {pid}: there is no such process") from exc


def is_local(host: str) -> bool:
    """Whether an address is of this machine alone."""
    if host.lower() in _NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find(host: str, port: int) -> Tree | None:
    """The server that listens on a port of this machine, with the processes above it.

    None when it is elsewhere, or belongs to somebody whose processes we cannot see.
    """
    if not is_local(host):
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status != psutil.CONN_LISTEN or not each.laddr or each.pid is None:
                continue
            if each.laddr[1] == port:
                return _root(psutil.Process(each.pid))
    return None


def _root(process: psutil.Process) -> Tree:
    """Workers of a node share the port; what is asked for is their supervisor."""
    while (parent := process.parent()) is not None and _is_node(parent):
        process = parent
    return Tree(process.pid, "couchestor" if _is_node(process) else process.name())


def _is_node(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "serve" in words and any("couchestor" in word for word in words)
