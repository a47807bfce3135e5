"""Root credentials: drawn once, private, never half given."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from couchestor_daemon.app import credentials_file
from couchestor_domain import errors


def test_drawn_once_then_read_back(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "credentials.json"
    first = credentials_file.load_or_create(path, {})
    again = credentials_file.load_or_create(path, {})
    assert (len(first.access_key), len(first.secret_key)) == (20, 40)
    assert first.is_new
    assert not again.is_new
    assert (again.access_key, again.secret_key) == (first.access_key, first.secret_key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert first.secret_key not in repr(first)


def test_environment_wins_and_writes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c"
    root = credentials_file.load_or_create(
        path, {"COUCHESTOR_ROOT_ACCESS_KEY": "admin", "COUCHESTOR_ROOT_SECRET": "password1"}
    )
    found = credentials_file.credential_of(root)
    assert (found.access_key, found.secret_key) == ("admin", "password1")
    assert not path.exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"COUCHESTOR_ROOT_ACCESS_KEY": "admin"},
        {"COUCHESTOR_ROOT_SECRET": "password1"},
        {"COUCHESTOR_ROOT_ACCESS_KEY": "admin", "COUCHESTOR_ROOT_SECRET": "short"},
    ],
)
def test_half_or_weak_pair_is_refused(tmp_path: pathlib.Path, environment: dict[str, str]) -> None:
    with pytest.raises(errors.ConfigurationError):
        credentials_file.load_or_create(tmp_path / "c", environment)


def test_loose_mode_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c"
    credentials_file.load_or_create(path, {})
    path.chmod(0o640)
    with pytest.raises(errors.ConfigurationError, match="chmod 600"):
        credentials_file.load_or_create(path, {})


@pytest.mark.parametrize("make", [pathlib.Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_named(
    tmp_path: pathlib.Path, make: Callable[[pathlib.Path], None]
) -> None:
    make(tmp_path / "c")
    with pytest.raises(errors.ConfigurationError, match="c is not a file: name another"):
        credentials_file.load_or_create(tmp_path / "c", {})


def test_damage_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c"
    path.write_text('{"access_key": 5')
    path.chmod(0o600)
    with pytest.raises(errors.ConfigurationError, match="damaged"):
        credentials_file.load_or_create(path, {})
