"""Which paths a process that starts late opens, when devices have left its node meanwhile."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from couchestor_daemon.adapters import departure_board
from couchestor_daemon.app import departed_devices, node_file, settings
from couchestor_domain import errors, ids

PATHS = tuple(pathlib.Path(f"/mnt/d{number}") for number in range(3))


def device(number: int) -> ids.DeviceId:
    return ids.DeviceId(f"{number:032x}")


def member(path: pathlib.Path) -> node_file.Member:
    return node_file.Member(
        joined_epoch=1, label=path.name, failure_domain=path.name, path=str(path), added=False
    )


@pytest.fixture
def board(tmp_path: pathlib.Path) -> departure_board.DepartureBoard:
    return departure_board.DepartureBoard(tmp_path)


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    return dataclasses.replace(settings.Settings(), data_dir=tmp_path, devices=PATHS)


@pytest.fixture
def membership() -> node_file.Membership:
    members = {str(device(number)): member(path) for number, path in enumerate(PATHS)}
    return node_file.Membership(node_id=ids.NodeId("a" * 32), members=members)


def opened(
    told: settings.Settings,
    membership: node_file.Membership,
    board: departure_board.DepartureBoard,
) -> tuple[pathlib.Path, ...]:
    return departed_devices.without_departed(told, membership, board).device_paths


def test_what_has_left_is_not_opened_until_it_is_taken_back(
    told: settings.Settings,
    membership: node_file.Membership,
    board: departure_board.DepartureBoard,
) -> None:
    assert opened(told, membership, board) == PATHS
    board.add(device(1), "a write failed")
    assert opened(told, membership, board) == (PATHS[0], PATHS[2])
    board.take_back(device(1))
    assert opened(told, membership, board) == PATHS
    board.add(device(1), "a write failed again")
    assert opened(told, membership, board) == (PATHS[0], PATHS[2])


def test_a_medium_in_the_place_of_a_dead_one_is_opened(
    told: settings.Settings,
    membership: node_file.Membership,
    board: departure_board.DepartureBoard,
) -> None:
    board.add(device(1), "gone")
    replaced = node_file.Membership(
        node_id=membership.node_id, members={**membership.members, device(9): member(PATHS[1])}
    )
    assert opened(told, replaced, board) == PATHS
    departed_devices.refuse_stalled(PATHS[1], replaced, board)


def test_what_hangs_is_not_looked_at_and_not_taken_back(
    membership: node_file.Membership, board: departure_board.DepartureBoard
) -> None:
    board.add(device(1), "a write hung", stalled=True)
    departed_devices.refuse_stalled(PATHS[0], membership, board)
    with pytest.raises(errors.DeviceStalledError, match="from the next start"):
        departed_devices.refuse_stalled(PATHS[1], membership, board)
    with pytest.raises(errors.DeviceStalledError):
        board.take_back(device(1))
