"""Log lines: for people on a terminal, JSON for machines. Both go to standard error."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Final, TextIO

from couchestor_gateway.ports import caller_context

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as ``extra=``, with the request id of the running task."""
    fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    if "request_id" not in fields and (current := caller_context.REQUEST_ID.get()):
        fields["request_id"] = current
    return fields


class HumanFormatter(logging.Formatter):
    """``12:00:00.000 INFO  message key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it when there is one."""
        moment = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        words = [f"{moment} {record.levelname:<7} {_one_line(record.getMessage())}"]
        words += [f"{key}={_quoted(value)}" for key, value in fields_of(record).items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; never more than one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The object: time (UTC), level, logger, pid, message, then the fields."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for key, value in fields_of(record).items():
            entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(*, json_lines: bool, level: str, stream: TextIO | None = None) -> None:
    """Send every logger of this process to one handler, replacing what was there."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if json_lines else HumanFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)
    logging.captureWarnings(True)


def complain(message: str) -> None:
    """Say why this process ends, in one line: for people, or of the log if that is JSON."""
    if any(isinstance(each.formatter, JsonFormatter) for each in logging.getLogger().handlers):
        logging.getLogger("couchestor").error("%s", message)
    else:
        print(f"couchestor: {message}", file=sys.stderr, flush=True)


def set_level(level: str) -> None:
    """Change the least level that is written, at any time."""
    logging.getLogger().setLevel(level.upper())
    # The access log of aiohttp is one line a request; the gateway's own metrics tell the same.
    logging.getLogger("asyncio").setLevel(max(logging.getLogger().level, logging.INFO))


def _one_line(text: str) -> str:
    # Client-chosen text must not be able to forge a line.
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _quoted(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return json.dumps(text, ensure_ascii=False)
