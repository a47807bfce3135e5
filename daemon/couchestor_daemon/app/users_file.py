"""Users of a node beside root: who they are and the keys they sign with, from a file in TOML.

    [[users]]
    id = "8f14e45fceea167a"            # the canonical id; owners and grantees are named by it
    display_name = "Ada"
    email = "ada@example.com"          # optional: a name to grant something to
    keys = [{ access_key = "ADAKEY", secret_key = "..." }]

Who has an id or an access key of a tenant in the store is refused by name: see ``identity_store``.
An id is for good: what a user owns is told by it. A user who leaves is taken out with the keys, or
loses the keys alone and goes on being shown by name.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from couchestor_daemon.app import credentials_file
from couchestor_domain import access, errors
from couchestor_gateway.ports import credentials

POLL_SECONDS: Final = 5.0
USERS_MAX: Final = 10_000
KEYS_MAX: Final = 16
"""Of one user."""

_ID: Final = re.compile(rf"[A-Za-z0-9_.$@+-]{{1,{access.USER_ID_CHARACTERS_MAX}}}")
_FIELDS: Final = frozenset({"id", "display_name", "email", "keys"})
_KEY_FIELDS: Final = frozenset({"access_key", "secret_key"})
_log = logging.getLogger("couchestor.users")


class Known(NamedTuple):
    """Root and the users of a file."""

    by_access_key: Mapping[str, credentials.Credential]
    by_id: Mapping[str, credentials.User]
    by_email: Mapping[str, credentials.User]


class Users:
    """Root and the users of a file; satisfies the gateway's ``CredentialStore``.

    A file that does not load leaves the users before in force.

    Args:
        path: None: root is the only user.

    Raises:
        ConfigurationError: the file does not load the first time.
    """

    def __init__(self, root: credentials_file.RootCredentials, path: pathlib.Path | None) -> None:
        self.root = root
        self._path = path
        self._check: Callable[[Known], None] = lambda known: None
        self._stamp = self._stamp_now()
        self._known = self._load()

    def guard(self, check: Callable[[Known], None]) -> None:
        """Have users checked before they come into force, those that are in force at once.

        Args:
            check: Raises ConfigurationError for users that must not be.
        """
        check(self._known)
        self._check = check

    def find(self, access_key: str) -> credentials.Credential | None:
        """See ``CredentialStore``."""
        return self._known.by_access_key.get(access_key)

    def user(self, user_id: str) -> credentials.User | None:
        """See ``CredentialStore``."""
        return self._known.by_id.get(user_id)

    def user_by_email(self, email: str) -> credentials.User | None:
        """See ``CredentialStore``."""
        return self._known.by_email.get(email.lower())

    def is_principal(self, name: str) -> bool:
        """See ``CredentialStore``."""
        return name in self._known.by_id

    def reload(self) -> bool:
        """Load the file again. Returns False, and logs why, when the old users are kept."""
        if self._path is None:
            return True
        self._stamp = self._stamp_now()
        try:
            loaded = self._load()
            self._check(loaded)
            self._known = loaded
        except errors.CouchestorError as exc:
            _log.error("new users refused, the old ones stay", extra={"reason": exc.message})
            return False
        _log.info("users loaded", extra={"file": str(self._path), "users": len(self._known.by_id)})
        return True

    def reload_if_changed(self) -> bool:
        """Load the file again when it has changed since the last look."""
        return self._stamp_now() != self._stamp and self.reload()

    async def watch(self, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Follow the file until cancelled. A stat and a small read: short enough inline."""
        while self._path is not None:
            await asyncio.sleep(poll_seconds)
            self.reload_if_changed()

    def _stamp_now(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat() if self._path is not None else None
        except OSError:
            status = None
        return (0, 0, 0) if status is None else (status.st_mtime_ns, status.st_ino, status.st_size)

    def _load(self) -> Known:
        root = credentials_file.credential_of(self.root)
        known = Known({root.access_key: root}, {root.owner: _user_of(root)}, {})
        if self._path is None:
            return known
        try:
            content = credentials_file.read_private(self._path, option="users_file")
        except FileNotFoundError as exc:
            raise errors.ConfigurationError(
                f"{self._path} does not exist: create it, or name another as users_file"
            ) from exc
        return _with_users(known, _tables(content, self._path), self._path)


def _user_of(credential: credentials.Credential) -> credentials.User:
    return credentials.User(user_id=credential.owner, display_name=credential.display_name)


def _tables(content: bytes, path: pathlib.Path) -> list[Any]:
    try:
        document = tomllib.loads(content.decode())
    except ValueError as exc:
        # Its message quotes a line, never a whole secret.
        raise errors.ConfigurationError(f"{path} is not TOML: {exc}") from exc
    tables = document.pop("users", [])
    if document or not isinstance(tables, list) or len(tables) > USERS_MAX:
        raise errors.ConfigurationError(
            f"{path} must hold [[users]] tables, {USERS_MAX} at most, and nothing else"
        )
    return tables


def _with_users(known: Known, tables: list[Any], path: pathlib.Path) -> Known:
    keys, by_id, by_email = dict(known.by_access_key), dict(known.by_id), dict(known.by_email)
    for number, table in enumerate(tables, 1):
        place = f"user {number} in {path}"
        user = _user(table, place)
        if user.user_id in by_id:
            raise errors.ConfigurationError(f"{place}: the id {user.user_id} is taken")
        by_id[user.user_id] = user
        if user.email:
            if user.email.lower() in by_email:
                raise errors.ConfigurationError(f"{place}: the e-mail address is taken")
            by_email[user.email.lower()] = user
        for access_key, secret_key in _keys(table, place):
            if access_key in keys:
                raise errors.ConfigurationError(
                    f"{place}: the access key {access_key} is somebody's already"
                )
            keys[access_key] = credentials.Credential(
                access_key=access_key,
                secret_key=secret_key,
                owner=user.user_id,
                display_name=user.display_name,
            )
    return Known(keys, by_id, by_email)


def _user(table: Any, place: str) -> credentials.User:
    if not isinstance(table, dict) or set(table) - _FIELDS:
        raise errors.ConfigurationError(
            f"{place} must be a table of {', '.join(sorted(_FIELDS))} and nothing else"
        )
    user_id = table.get("id")
    if not isinstance(user_id, str) or not _ID.fullmatch(user_id):
        raise errors.ConfigurationError(
            f"{place}: id must be 1 to {access.USER_ID_CHARACTERS_MAX} letters, digits,"
            " '_', '.', '$', '@', '+' or '-'"
        )
    display_name, email = table.get("display_name", user_id), table.get("email", "")
    for name, value in (("display_name", display_name), ("email", email)):
        if not isinstance(value, str) or len(value) > 256 or not (value + "x").isprintable():
            raise errors.ConfigurationError(
                f"{place}: {name} must be a text of 256 printable characters at most"
            )
    return credentials.User(user_id=user_id, display_name=display_name, email=email)


def _keys(table: dict[str, Any], place: str) -> list[tuple[str, str]]:
    listed = table.get("keys", [])
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise errors.ConfigurationError(f"{place}: keys must be a list of {KEYS_MAX} at most")
    found: list[tuple[str, str]] = []
    for key in listed:
        if not isinstance(key, dict) or set(key) != _KEY_FIELDS:
            raise errors.ConfigurationError(
                f"{place}: each key must be a table of access_key and secret_key"
            )
        pair = credentials_file.check_pair(key["access_key"], key["secret_key"], source=place)
        found.append(pair)
    return found
