"""What the processes of a node run: the module that the supervisor gives its children.

Each imports only what its role needs: a third of a second of processor time for the least of
them, a whole one for a worker. The supervisor, which takes the locks, stays small.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from couchestor_daemon.app import device_messages, preparation, settings

_MODULES: Final[Mapping[str, str]] = {
    "prepare": "couchestor_daemon.app.preparation",
    "worker": "couchestor_daemon.app.worker",
    "maintenance": "couchestor_daemon.app.maintenance",
    "conclude": "couchestor_daemon.app.preparation",
}


def load(role: str) -> None:
    """Import what a role needs: long before it may begin, if it has to wait."""
    importlib.import_module(_MODULES[role])


def lock_devices(told: settings.Settings) -> list[int]:
    """Locks for the supervisor to hold and its children to inherit.

    A first start formats its devices here: what is not there yet cannot be locked.
    """
    from couchestor_daemon.app import device_set, node_file

    device_set.format_first(told, node_file.load(told))
    return device_set.lock_all(told.device_paths)


def prepare(told: settings.Settings) -> preparation.NodeSummary:
    """Bring the node to where workers may serve. Raises CouchestorError."""
    from couchestor_daemon.app import preparation

    return preparation.prepare(told)


def conclude(told: settings.Settings) -> None:
    """Mark an orderly stop as clean, once no other process of the node is left."""
    from couchestor_daemon.app import preparation

    preparation.conclude(told)


async def run_worker(
    told: settings.Settings,
    *,
    slot: int,
    credentials: Any,
    inbox: device_messages.OrderInbox,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Serve S3 until ``stop``, then drain."""
    from couchestor_daemon.app import worker

    await worker.run(told, slot=slot, credentials=credentials, inbox=inbox, ready=ready, stop=stop)


async def run_maintenance(
    told: settings.Settings,
    *,
    inbox: device_messages.OrderInbox,
    ready: Callable[[], None],
    report: Callable[[dict[str, object]], None],
    stop: asyncio.Event,
) -> None:
    """Background work until ``stop``.

    Args:
        report: Told what people should see of it.
    """
    from couchestor_daemon.adapters import memory_allocator
    from couchestor_daemon.app import maintenance

    memory_allocator.keep_freed_memory()
    await maintenance.run(told, inbox=inbox, ready=ready, report=report, stop=stop)
