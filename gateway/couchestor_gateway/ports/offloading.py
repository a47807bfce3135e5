"""Where the gateway sends CPU work that would hold up its event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Offload = Callable[..., Awaitable[object]]
"""``await offload(function, *arguments)`` calls it on a thread and gives its result.

Cancellation: delivered only once a call that has started has ended.
"""
