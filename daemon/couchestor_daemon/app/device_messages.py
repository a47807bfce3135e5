"""What a supervisor and its children tell each other about devices: orders and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from couchestor_domain import ids


class DeviceOrder(msgspec.Struct, frozen=True):
    """One order about one device; ``number`` names it in the answer."""

    number: int
    act: str
    device_id: str
    path: str = ""


class DeviceAnswer(msgspec.Struct, frozen=True):
    """``error`` is empty when the order was carried out."""

    number: int
    error: str = ""
    facts: dict[str, Any] = {}


class OrderInbox:
    """The orders of one process on their way to its parts, which begin later and end earlier.

    Args:
        held: Devices that are not to be given zones before an order says so.
        answer: Sends a line to the supervisor; may take a while, loses nothing.
    """

    def __init__(
        self,
        answer: Callable[[DeviceAnswer], Awaitable[None]],
        *,
        held: frozenset[ids.DeviceId] = frozenset(),
    ) -> None:
        self.held = held
        self.answer = answer
        self.waiting: asyncio.Queue[DeviceOrder] = asyncio.Queue()
