"""Whose request the running task works for, for whoever writes log lines below the gateway."""

from __future__ import annotations

import contextvars
from typing import Final

REQUEST_ID: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("request_id", default="")
"""What the client is told as ``x-amz-request-id``; empty outside a request. A task that a request
starts inherits it; one that goes on for others empties it."""
