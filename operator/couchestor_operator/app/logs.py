"""Log lines: for people, or JSON for machines. Both go to standard error."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Final

PROGRAM: Final = "couchestor-operator"
LEVELS: Final = ("debug", "info", "warning", "error")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``2026-01-01T12:00:00.000Z INFO    message key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it when there is one."""
        message = " ".join(record.getMessage().split())
        words = [_moment(record), f"{record.levelname:<7}", message]
        words += [f"{key}={value}" for key, value in _fields_of(record).items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; never more than one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The object: time (UTC), level, logger, message, then the fields."""
        entry: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _fields_of(record).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(*, json_lines: bool, level: str) -> None:
    """Send every logger of this process to one handler, replacing what was there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def complain(message: str, *, json_lines: bool) -> None:
    """Say in one line why this process ends."""
    if json_lines:
        configure(json_lines=True, level="error")
        logging.getLogger(PROGRAM).error("%s", message)
    else:
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
