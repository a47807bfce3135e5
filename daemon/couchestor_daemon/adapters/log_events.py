"""Domain events as structured log lines."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from couchestor_domain import events, ids

_log: Final = logging.getLogger("couchestor.events")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


_ROUTINE: Final = frozenset(
    {
        *(events.WriteJournaled, events.StripeEncoded, events.StripeDestaged),
        *(events.ZoneOpened, events.ZoneClosed, events.ZoneReset),
    }
)
"""Events of ordinary work: a line for each would bury the others, and those of every write would
cost as much as the write."""

_GRAVE: Final = {
    events.ShardFailed: logging.WARNING,
    events.ReplicaDegraded: logging.WARNING,
    events.ReconstructionFailed: logging.ERROR,
    events.MigrationFailed: logging.ERROR,
}
"""Events that a log without the ordinary must still show; so is a device that is not healthy."""

_FREQUENT: Final = {events.ShardFailed: "device_id", events.DegradedRead: ""}
"""Events that every read of a lost device causes, and the field that tells one cause from another:
a line for each read would fill the log's disk in an hour."""
QUIET_SECONDS: Final = 10.0
"""After such a line the next ones of the same cause are counted, not written, for this long."""
CAUSES_MAX: Final = 256


class LogEventPublisher:
    """Writes one line per event: those of ordinary work at DEBUG, what went wrong above INFO.

    Of an event that repeats for one cause, a line stands for those since the line before it, and
    says how many. Satisfies the domain's ``EventPublisher``. Thread-safe.

    Args:
        monotonic_seconds: Any steady clock.
        label_of: What people call a device; empty when that is not known.
    """

    def __init__(
        self,
        monotonic_seconds: Callable[[], float] = time.monotonic,
        *,
        label_of: Callable[[ids.DeviceId], str] = lambda device_id: "",
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._label_of = label_of
        self._lock = threading.Lock()
        self._quiet_until: dict[tuple[str, str], tuple[float, int]] = {}

    def publish(self, event: object) -> None:
        """Log the event's name with its fields, prefixed so that none hides a log attribute."""
        level = _level(event)
        if not _log.isEnabledFor(level):
            return
        name = type(event).__name__
        fields: dict[str, object] = {"event": name}
        if (by := _FREQUENT.get(type(event))) is not None:
            count = self._count_since_line(name, str(getattr(event, by)) if by else "")
            if not count:
                return
            fields["event_count"] = count
        if dataclasses.is_dataclass(event):
            for field in dataclasses.fields(event):
                fields[f"event_{field.name}"] = getattr(event, field.name)
        if (device_id := _device_of(event)) and (label := self._label_of(device_id)):
            fields["event_device_label"] = label
        _log.log(level, _WORD_START.sub(" ", name).lower(), extra=fields)

    def _count_since_line(self, name: str, cause: str) -> int:
        """How many events the line to be written now stands for; 0: none is to be written."""
        now = self._monotonic_seconds()
        with self._lock:
            quiet_until, unwritten_count = self._quiet_until.get((name, cause), (now, 0))
            if now < quiet_until:
                self._quiet_until[name, cause] = (quiet_until, unwritten_count + 1)
                return 0
            if len(self._quiet_until) >= CAUSES_MAX:
                self._quiet_until.clear()
            self._quiet_until[name, cause] = (now + QUIET_SECONDS, 0)
            return unwritten_count + 1


def _level(event: object) -> int:
    if isinstance(event, events.HealthChanged):
        return logging.INFO if event.healthy else logging.WARNING
    return logging.DEBUG if type(event) in _ROUTINE else _GRAVE.get(type(event), logging.INFO)


def _device_of(event: object) -> ids.DeviceId | None:
    if isinstance(event, events.HealthChanged):
        return ids.DeviceId(event.subject.rpartition(" ")[2])
    found = getattr(event, "device_id", None)
    return ids.DeviceId(found) if isinstance(found, str) else None
