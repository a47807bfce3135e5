"""Domain events as structured log lines."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Final

from couchestor_domain import events

_log: Final = logging.getLogger("couchestor.events")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


_ROUTINE: Final = frozenset(
    {
        *(events.WriteJournaled, events.StripeEncoded),
        *(events.ZoneOpened, events.ZoneClosed, events.ZoneReset),
    }
)
"""Events of ordinary work: a line for each would bury the others, and those of every write would
cost as much as the write."""


class LogEventPublisher:
    """Writes one line per event, those of ordinary work at DEBUG.

    Satisfies the domain's ``EventPublisher``.
    """

    def publish(self, event: object) -> None:
        """Log the event's name with its fields, prefixed so that none hides a log attribute."""
        level = logging.DEBUG if type(event) in _ROUTINE else logging.INFO
        if not _log.isEnabledFor(level):
            return
        name = type(event).__name__
        fields: dict[str, object] = {"event": name}
        if dataclasses.is_dataclass(event):
            for field in dataclasses.fields(event):
                fields[f"event_{field.name}"] = getattr(event, field.name)
        _log.log(level, _WORD_START.sub(" ", name).lower(), extra=fields)
