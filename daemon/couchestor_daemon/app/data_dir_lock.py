"""One daemon, or one tool that must be alone, for each data directory."""

from __future__ import annotations

import fcntl
import os

from couchestor_daemon.app import settings
from couchestor_domain import errors


class DataDirInUseError(errors.ConfigurationError):
    """A daemon holds the data directory: it runs, or is about to."""


def take(told: settings.Settings, *, advice: str = "choose another with --data-dir") -> int:
    """Take the data directory for this node alone; the lock lives as long as the descriptor.

    Args:
        advice: What the refusal tells a person to do when another daemon has it.

    Raises:
        DataDirInUseError: another daemon has it.
        ConfigurationError: it cannot be made or opened.
    """
    path = told.data_dir / "couchestord.lock"
    try:
        told.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot use {told.data_dir}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise DataDirInUseError(
            f"another couchestor daemon uses {told.data_dir}; {advice}"
        ) from exc
    return fd
