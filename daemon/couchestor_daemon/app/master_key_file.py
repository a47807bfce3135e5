"""The keys that secrets in the index are sealed with: drawn at first start, kept in a file only the
owner can read, and nowhere else.

    {"active": "3f9c…", "keys": {"3f9c…": "<32 bytes in base64>"}}

A rotation puts a new key first, seals everything with it, and then takes the old ones out, so that
at every moment whatever the index holds can be opened by what the file holds.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Final

from couchestor_daemon.adapters import secret_sealing
from couchestor_daemon.app import credentials_file
from couchestor_domain import errors

_ID_BYTES: Final = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MasterKeyFile:
    """What the file holds."""

    active: str
    keys: dict[str, bytes] = dataclasses.field(repr=False)


def load_or_create(path: pathlib.Path) -> secret_sealing.MasterKeys:
    """The master keys of a node, newly drawn where there are none.

    Durability: a new file and its folder are flushed before this returns.

    Raises:
        ConfigurationError: a loose file mode, an unreadable or damaged file.
    """
    with contextlib.suppress(FileNotFoundError):
        return load(path)
    key_id, key = _drawn()
    with contextlib.suppress(FileExistsError):  # another process may have been first
        _write(path, MasterKeyFile(active=key_id, keys={key_id: key}), replace=False)
    return load(path)


def load(path: pathlib.Path) -> secret_sealing.MasterKeys:
    """The master keys. Raises FileNotFoundError, ConfigurationError."""
    found = _read(path)
    return secret_sealing.MasterKeys(found.keys, found.active, source=str(path))


def add(path: pathlib.Path) -> secret_sealing.MasterKeys:
    """Draw a new key, which seals from now on; the others stay to open what they sealed.

    Durability: as ``load_or_create``. Raises ConfigurationError.
    """
    with _locked(path):
        try:
            found = _read(path)
        except FileNotFoundError as exc:
            raise errors.ConfigurationError(f"{path} is gone: put it back first") from exc
        key_id, key = _drawn()
        changed = MasterKeyFile(active=key_id, keys={**found.keys, key_id: key})
        _write(path, changed, replace=True)
        return load(path)


def drop_others(path: pathlib.Path, key_id: str) -> None:
    """Take every key out but the active one, if that is ``key_id``. Raises ConfigurationError."""
    with _locked(path):
        found = _read(path)
        if found.active == key_id:
            kept = MasterKeyFile(active=key_id, keys={key_id: found.keys[key_id]})
            _write(path, kept, replace=True)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Changes of the file one after the other, whichever processes make them."""
    try:
        fd = os.open(
            path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot lock {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _drawn() -> tuple[str, bytes]:
    return secrets.token_hex(_ID_BYTES), secrets.token_bytes(secret_sealing.KEY_BYTES)


def _read(path: pathlib.Path) -> MasterKeyFile:
    content = credentials_file.read_private(path, option="master_key_file")
    try:
        document = json.loads(content)
        keys = {
            str(key_id): base64.b64decode(text, validate=True)
            for key_id, text in document["keys"].items()
        }
        found = MasterKeyFile(active=document["active"], keys=keys)
        if found.active not in keys or any(
            len(key) != secret_sealing.KEY_BYTES for key in keys.values()
        ):
            raise ValueError("a key is missing or too short")
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise errors.ConfigurationError(
            f"{path} is damaged: put a copy of it back; without it the access keys of tenants do "
            "not open, and removing it starts the node with a new one"
        ) from exc
    return found


def _write(path: pathlib.Path, content: MasterKeyFile, *, replace: bool) -> None:
    """Raises FileExistsError unless it may replace; ConfigurationError."""
    document = {
        "active": content.active,
        "keys": {key_id: base64.b64encode(key).decode() for key_id, key in content.keys.items()},
    }
    text = json.dumps(document, indent=2) + "\n"
    credentials_file.write_private(path, text, replace=replace)
