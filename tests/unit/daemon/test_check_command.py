"""How ``couchestor check`` finds out whether the node runs, and when it would rather not look."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from couchestor_daemon.app import (
    check_command,
    data_dir_lock,
    node_check,
    preparation,
    settings,
    stop_mark,
)
from couchestor_domain import errors, units

pytestmark = pytest.mark.may_block


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    """A node that has been started once."""
    made = settings.Settings(
        data_dir=tmp_path / "node", device_capacity_bytes=16 * units.MIB, zone_bytes=units.MIB
    )
    preparation.prepare(made)
    return made


@pytest.fixture
def running(told: settings.Settings) -> Iterator[settings.Settings]:
    """The same, with its data directory taken as a supervisor does."""
    fd = data_dir_lock.take(told)
    yield told
    os.close(fd)


def test_a_running_node_is_looked_at_without_a_lock_and_left_as_it_is(
    running: settings.Settings,
) -> None:
    before = _state(running)
    assert check_command.check(running) == ([], [], [])
    assert _state(running) == before


def test_a_running_node_repairs_by_itself(running: settings.Settings) -> None:
    with pytest.raises(errors.ConfigurationError, match="repairs by itself"):
        check_command.check(running, repair=True)


def test_a_node_that_rebuilds_its_index_is_not_looked_at(running: settings.Settings) -> None:
    stop_mark.remove(running.data_dir)
    with pytest.raises(errors.ConfigurationError, match="check again once"):
        check_command.check(running)


def test_an_index_that_is_replaced_during_the_look_makes_it_void(
    running: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = node_check.findings

    def look(*words: object, **named: object) -> object:
        found = honest(*words, **named)  # type: ignore[arg-type]
        index = preparation.index_dir(running)
        index.rename(index.with_name("index.before-rebuild"))
        preparation.open_index(running).close()
        return found

    monkeypatch.setattr(node_check, "findings", look)
    with pytest.raises(errors.ConfigurationError, match="has rebuilt its index during the check"):
        check_command.check(running)


def test_a_stopped_node_is_locked_during_the_look(
    told: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = node_check.findings

    def look(*words: object, **named: object) -> object:
        with pytest.raises(data_dir_lock.DataDirInUseError):
            data_dir_lock.take(told)
        return honest(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(node_check, "findings", look)
    assert check_command.check(told, quick=True) == ([], [], [])


def _state(told: settings.Settings) -> dict[pathlib.Path, tuple[int, int]]:
    """Size and time of change of every file; readers of LMDB leave a trace in its lock file."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(told.data_dir.rglob("*"))
        if path.name != "lock.mdb"
    }
