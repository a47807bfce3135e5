"""The root credentials: drawn at first start, kept in a file only the owner can read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import secrets
import stat
import string
from collections.abc import Mapping
from typing import Final

from couchestor_domain import errors
from couchestor_gateway.ports import credentials

ACCESS_KEY_CHARACTERS: Final = 20
SECRET_CHARACTERS: Final = 40
ACCESS_KEY_VARIABLE: Final = "COUCHESTOR_ROOT_ACCESS_KEY"
SECRET_VARIABLES: Final = ("COUCHESTOR_ROOT_SECRET", "COUCHESTOR_ROOT_SECRET_KEY")
ROOT_OWNER: Final = "root"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RootCredentials:
    """The root key pair and how it was come by."""

    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    is_new: bool = False
    source: str = ""


def credential_of(root: RootCredentials) -> credentials.Credential:
    """The root credential as the gateway looks it up."""
    return credentials.Credential(
        access_key=root.access_key,
        secret_key=root.secret_key,
        owner=ROOT_OWNER,
        display_name=ROOT_OWNER,
    )


def load_or_create(path: pathlib.Path, environment: Mapping[str, str]) -> RootCredentials:
    """The root credentials: from the environment, else the file, else newly drawn.

    Durability: a new file and its folder are flushed before this returns, because a key that was
    shown must still open the store after power loss.

    Raises:
        ConfigurationError: half an environment pair, a loose file mode, an unreadable file.
    """
    given = _from_environment(environment)
    if given is not None:
        return given
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    _create(path)
    # Read back what won: another process may have created the file first.
    return dataclasses.replace(_read(path), is_new=True)


def load(path: pathlib.Path, environment: Mapping[str, str]) -> RootCredentials:
    """The root credentials of a node that has some: from the environment, else the file.

    Raises:
        ConfigurationError: there are none, or as ``load_or_create``.
    """
    given = _from_environment(environment)
    if given is not None:
        return given
    try:
        return _read(path)
    except FileNotFoundError as exc:
        raise errors.ConfigurationError(
            f"there are no root credentials in {path}: name the node's --data-dir or "
            f"--credentials-file, or set {ACCESS_KEY_VARIABLE} and {SECRET_VARIABLES[0]}"
        ) from exc


def _from_environment(environment: Mapping[str, str]) -> RootCredentials | None:
    access_key = environment.get(ACCESS_KEY_VARIABLE, "")
    secret = next((environment[name] for name in SECRET_VARIABLES if environment.get(name)), "")
    if not access_key and not secret:
        return None
    if not access_key or not secret:
        raise errors.ConfigurationError(
            f"{ACCESS_KEY_VARIABLE} and {SECRET_VARIABLES[0]} belong together: set both or neither"
        )
    return _checked(access_key, secret, source="the environment")


def check_pair(access_key: object, secret: object, *, source: str) -> tuple[str, str]:
    """An access key and its secret, if they can be such.

    Args:
        source: Where they stand, for the refusal.

    Raises:
        ConfigurationError
    """
    if not isinstance(access_key, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{3,128}", access_key):
        raise errors.ConfigurationError(
            f"the access key from {source} must be 3 to 128 letters, digits, '.', '_' or '-'"
        )
    if not isinstance(secret, str) or not re.fullmatch(r"[!-~]{8,128}", secret):
        raise errors.ConfigurationError(
            f"the secret key from {source} must be 8 to 128 printable ASCII characters"
        )
    return access_key, secret


def _checked(access_key: object, secret: object, *, source: str) -> RootCredentials:
    access_key, secret = check_pair(access_key, secret, source=source)
    return RootCredentials(access_key=access_key, secret_key=secret, source=source)


def read_private(path: pathlib.Path, *, option: str) -> bytes:
    """The content of a file that only its owner may read.

    Args:
        option: The setting that names it, for the refusal.

    Raises:
        FileNotFoundError
        ConfigurationError: it cannot be read, is no file, or others may read it.
    """
    try:
        # Not waiting for whoever writes into a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    # Of what was opened, not of a path that may have been swapped since.
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise errors.ConfigurationError(f"{path} is not a file: name another as {option}")
    with os.fdopen(fd, "rb") as file:
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise errors.ConfigurationError(
                f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"run: chmod 600 {path}"
            )
        try:
            return file.read()
        except OSError as exc:
            raise errors.ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc


def _read(path: pathlib.Path) -> RootCredentials:
    content = read_private(path, option="credentials_file")
    try:
        document = json.loads(content)
        return _checked(document["access_key"], document["secret_key"], source=str(path))
    except (ValueError, KeyError, TypeError) as exc:
        raise errors.ConfigurationError(
            f"{path} is damaged; restore it, or remove it to draw a new root key"
        ) from exc


def draw_pair() -> tuple[str, str]:
    """A new access key and its secret."""
    alphabet = string.ascii_uppercase + string.digits
    access_key = "".join(secrets.choice(alphabet) for _ in range(ACCESS_KEY_CHARACTERS))
    secret_alphabet = string.ascii_letters + string.digits
    return access_key, "".join(secrets.choice(secret_alphabet) for _ in range(SECRET_CHARACTERS))


def _create(path: pathlib.Path) -> None:
    access_key, secret = draw_pair()
    text = json.dumps({"access_key": access_key, "secret_key": secret}, indent=2) + "\n"
    with contextlib.suppress(FileExistsError):
        write_private(path, text, replace=False)


def write_private(path: pathlib.Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner may read, in one go.

    Durability: it and its folder are flushed before this returns.

    Raises:
        FileExistsError: it is there and may not be replaced.
        ConfigurationError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # link, not rename: never replaces an existing key
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot create {path}: {exc.strerror}") from exc
