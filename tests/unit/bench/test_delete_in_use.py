"""Folders that a server goes on making files in are deleted all the same."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest

from couchestor_bench import server_process


def test_a_file_that_comes_meanwhile_is_met_by_the_next_turn(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones = tmp_path / "device" / "zones"
    zones.mkdir(parents=True)
    (zones / "0.zone").touch()
    rmdir, turns = os.rmdir, iter(range(1, 9))

    def raced(path: str, **options: typing.Any) -> None:
        # As a server does between the listing of a folder and its removal.
        if path == "zones" and (turn := next(turns)) < 3:
            (zones / f"{turn}.zone").touch()
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", raced)
    server_process.delete_in_use(tmp_path / "device")
    assert not (tmp_path / "device").exists()
    assert next(turns) == 4


def test_it_is_said_when_the_folder_does_not_go(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: str, **options: typing.Any) -> None:
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(os, "rmdir", busy)
    with pytest.raises(OSError, match="busy"):
        server_process.delete_in_use(tmp_path, deadline_seconds=0.05)
