"""Domain events as structured log lines."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Final

_log: Final = logging.getLogger("couchestor.events")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class LogEventPublisher:
    """Writes one line per event; satisfies the domain's ``EventPublisher``."""

    def publish(self, event: object) -> None:
        """Log the event's name with its fields, prefixed so that none hides a log attribute."""
        name = type(event).__name__
        fields: dict[str, object] = {"event": name}
        if dataclasses.is_dataclass(event):
            for field in dataclasses.fields(event):
                fields[f"event_{field.name}"] = getattr(event, field.name)
        _log.info(_WORD_START.sub(" ", name).lower(), extra=fields)
