"""Devices that go while nobody uses them are found gone, and people are told."""

from __future__ import annotations

import asyncio
import pathlib
import shutil

import pytest
import pytest_asyncio

from couchestor_daemon.adapters import departure_board, threaded_media
from couchestor_daemon.app import device_presence, device_set, node_file, settings
from couchestor_domain import units

ALL_THERE = {
    "members": 3,
    "in_service": 3,
    "taking_writes": 3,
    "writes_need": 2,
    "losses_survived": 1,
}


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    made = settings.Settings(
        data_dir=tmp_path / "node",
        devices=tuple(tmp_path / f"d{number}" for number in range(3)),
        device_capacity_bytes=32 * units.MIB,
        zone_bytes=units.MIB,
        stripe_bytes=units.MIB,
        data_shards=2,
        parity_shards=1,
    )
    made.data_dir.mkdir()
    device_set.format_first(made, None)
    devices = device_set.open_all(made, None)
    device_set.join_all(made, devices, None)
    for device in devices.values():
        device.close()
    return made


class Rig:
    """One process's devices."""

    def __init__(self, told: settings.Settings, board: departure_board.DepartureBoard) -> None:
        self.devices = device_set.open_all(told, node_file.load(told))
        self.media = threaded_media.ThreadedMedia(
            self.devices, lambda device_id, error: None, departures=board
        )
        self.reports: list[dict[str, object]] = []
        self.free: dict[str, int] = {}
        self.presence = device_presence.DevicePresence(
            told,
            self.devices,
            self.media,
            departures=board,
            report=self.reports.append,
            measure_free=lambda device_id, label, free_bytes: self.free.update({label: free_bytes}),
        )

    def close(self) -> None:
        self.media.close()
        for device in self.devices.values():
            device.close()


@pytest_asyncio.fixture
async def board(tmp_path: pathlib.Path) -> departure_board.DepartureBoard:
    return departure_board.DepartureBoard(tmp_path)


@pytest.mark.may_block
async def test_a_deleted_folder_is_out_of_service_though_nobody_used_it(
    told: settings.Settings, board: departure_board.DepartureBoard
) -> None:
    rig = Rig(told, board)
    assert rig.presence.look() == {"device_counts": ALL_THERE, "departed": {}, "missing": {}}
    assert sorted(rig.free) == ["d0", "d1", "d2"]
    assert min(rig.free.values()) > 0
    for name in ("d0", "d2"):
        shutil.rmtree(told.data_dir.parent / name)
    found = rig.presence.look()
    assert found["device_counts"] == {**ALL_THERE, "in_service": 1, "taking_writes": 1}
    departed = found["departed"]
    assert isinstance(departed, dict)
    assert sorted(departed) == ["d0", "d2"]
    assert "its folder was deleted" in departed["d0"]
    assert board.count() == 2
    rig.close()


@pytest.mark.may_block
async def test_what_was_not_there_at_the_start_is_missing(
    told: settings.Settings, board: departure_board.DepartureBoard
) -> None:
    path = told.data_dir.parent / "d1"
    shutil.rmtree(path)
    rig = Rig(told, board)
    assert rig.presence.look() == {
        "device_counts": {**ALL_THERE, "in_service": 2, "taking_writes": 2},
        "departed": {},
        "missing": {"d1": str(path)},
    }
    rig.close()


@pytest.mark.may_block
async def test_only_news_is_reported(
    told: settings.Settings,
    board: departure_board.DepartureBoard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_presence, "LOOK_SECONDS", 0.001)
    rig = Rig(told, board)
    stop = asyncio.Event()
    looked = asyncio.Event()
    looks: list[dict[str, object]] = []

    def tell(found: dict[str, object]) -> None:
        looks.append(found)
        if len(looks) == 3:
            looked.set()
        device_presence.DevicePresence.tell(rig.presence, found)

    monkeypatch.setattr(rig.presence, "tell", tell)
    running = asyncio.create_task(rig.presence.run(stop))
    await looked.wait()
    assert len(rig.reports) == 1
    stop.set()
    await running
    rig.close()
