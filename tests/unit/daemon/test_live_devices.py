"""Devices of a running node: the order of the two phases, and what a child that dies changes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from couchestor_daemon.adapters import directory_layout
from couchestor_daemon.app import (
    control_socket,
    device_listing,
    device_messages,
    device_set,
    live_devices,
    node_file,
    settings,
)
from couchestor_domain import errors, units

pytestmark = pytest.mark.may_block

_NOTHING = {"zones_count": 0, "groups_count": 0, "segments_count": 0, "checkpoints_count": 0}


class Children:
    """Two workers and the maintenance process, as far as the supervisor sees them."""

    def __init__(self) -> None:
        self.devices: live_devices.LiveDevices
        self.said: list[tuple[str, str, bool]] = []
        """Order, label of the device, whether new children were told to hold it then."""
        self.labels: dict[str, str] = {}
        self.failing: dict[str, str] = {}
        """Order -> what worker-1 answers to it; ``dead``: it died."""
        self.in_service = True
        self.facts: Mapping[str, int] = _NOTHING

    async def ask(
        self, order: device_messages.DeviceOrder, role: str = ""
    ) -> Mapping[str, device_messages.DeviceAnswer | None]:
        held = order.device_id in self.devices.held
        self.said.append((order.act, self.labels.get(order.device_id, "new"), held))
        facts: dict[str, object] = {"in_service": self.in_service}
        if order.act == "count":
            facts = dict(self.facts)
        names = ("maintenance",) if role else ("maintenance", "worker-0", "worker-1")
        answers: dict[str, device_messages.DeviceAnswer | None] = {
            name: device_messages.DeviceAnswer(order.number, "", facts) for name in names
        }
        if (problem := self.failing.get(order.act)) and "worker-1" in answers:
            answers["worker-1"] = (
                None if problem == "dead" else device_messages.DeviceAnswer(order.number, problem)
            )
        return answers

    def acts(self) -> list[str]:
        return [f"{act} {label}" for act, label, _ in self.said]


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    """A node of seven small devices that runs; six are needed."""
    made = settings.Settings(
        data_dir=tmp_path / "node",
        devices=tuple(tmp_path / f"d{number}" for number in range(7)),
        device_capacity_bytes=32 * units.MIB,
        zone_bytes=units.MIB,
        stripe_bytes=units.MIB,
        workers=1,
    )
    made.data_dir.mkdir()
    device_set.format_first(made, None)
    devices = device_set.open_all(made, None)
    device_set.join_all(made, devices, None)
    for device in devices.values():
        device.close()
    return made


@pytest.fixture
def children(told: settings.Settings) -> Children:
    membership = node_file.load(told)
    assert membership is not None
    made = Children()
    made.labels = {key: member.label for key, member in membership.members.items()}
    return made


@pytest_asyncio.fixture
async def live(
    told: settings.Settings, children: Children
) -> AsyncIterator[live_devices.LiveDevices]:
    made = live_devices.LiveDevices(
        told, children.ask, lock_fds=device_set.lock_all(told.device_paths)
    )
    children.devices = made
    yield made
    made.close()
    for fd in made.lock_fds:
        os.close(fd)


def _request(command: str, **words: str) -> control_socket.Request:
    return control_socket.Request(command=command, **words)  # type: ignore[arg-type]


def _members(told: settings.Settings) -> set[str]:
    membership = node_file.load(told)
    assert membership is not None
    return {member.label for member in membership.members.values()}


def _empty(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    return path


async def test_a_device_is_employed_only_when_every_child_has_opened_it(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    path = _empty(told.data_dir / "d7")
    line = await live.carry_out(_request("add", path=str(path), label="new-one"))
    assert line.startswith("added device new-one at ")
    # A child that starts between the two is told to hold it; one that starts later is not.
    assert children.said == [("open", "new", True), ("employ", "new", False)]
    assert path in live.told.device_paths
    assert "new-one" in _members(told)
    assert live.summary == {"devices_count": 8, "missing_count": 0}
    with pytest.raises(errors.DeviceInUseError):
        directory_layout.lock(path, "elsewhere")


@pytest.mark.parametrize("act", ["open", "employ"])
async def test_a_child_that_cannot_open_it_keeps_it_from_taking_anything(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings, act: str
) -> None:
    path = _empty(told.data_dir / "d7")
    children.failing = {act: "too many open files"}
    with pytest.raises(errors.NodeError, match="worker-1: too many open files"):
        await live.carry_out(_request("add", path=str(path)))
    assert ("employ new" in children.acts()) is (act == "employ")
    assert bool(live.held) is (act == "open")
    # Repeating the command finishes it.
    children.failing, children.said, children.in_service = {}, [], act == "open"
    line = await live.carry_out(_request("add", path=str(path)))
    assert "is a device of this node: device d7" in line
    assert children.acts() == ["ask new", "open new", "employ new"]
    assert not live.held


async def test_a_child_that_dies_is_not_waited_for(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    path = _empty(told.data_dir / "d7")
    children.failing = {"open": "dead"}
    assert "in service" in await live.carry_out(_request("add", path=str(path)))
    assert children.acts() == ["open new", "employ new"]


async def test_what_cannot_join_is_refused_and_nobody_hears_of_it(
    live: live_devices.LiveDevices,
    children: Children,
    told: settings.Settings,
    tmp_path: pathlib.Path,
) -> None:
    full = _empty(tmp_path / "full")
    (full / "holiday.jpg").touch()
    for request, text in (
        (_request("add", path=str(full)), "full is not empty"),
        (_request("add", path=str(tmp_path / "absent")), "is not a folder"),
        (_request("add", path=str(told.devices[2])), "in service already"),
        (_request("attach", path=str(full)), "no identity|not formatted|is not"),
        (_request("retire", name="d9"), "no device is called d9"),
        (_request("remove", name="d3"), "is in service: `couchestor device retire d3`"),
        (_request("explode"), "unknown here"),
    ):
        with pytest.raises(errors.CouchestorError, match=text):
            await live.carry_out(request)
    assert {act for act, _, _ in children.said} == {"ask"}
    assert live.told == told
    assert len(_members(told)) == 7


async def test_one_change_at_a_time(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    path = _empty(told.data_dir / "d7")
    second: list[str] = []
    ask = children.ask

    async def meanwhile(
        order: device_messages.DeviceOrder, role: str = ""
    ) -> Mapping[str, device_messages.DeviceAnswer | None]:
        with pytest.raises(errors.NodeError) as refused:
            await live.carry_out(_request("retire", name="d1"))
        second.append(refused.value.message)
        return await ask(order, role)

    live._ask_children = meanwhile
    await live.carry_out(_request("add", path=str(path)))
    assert f"another change of devices is under way (add {path})" in second[0]
    live._ask_children = ask
    assert "d1 is retiring" in await live.carry_out(_request("retire", name="d1"))


async def test_a_device_retires_is_emptied_and_leaves(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    await live.carry_out(_request("retire", name="d5"))
    assert children.acts() == ["reread d5"]
    children.facts = {**_NOTHING, "zones_count": 3, "groups_count": 3}
    with pytest.raises(errors.StoreReadOnlyError, match="3 zones, of 3 stripe groups"):
        await live.carry_out(_request("remove", name="d5"))
    assert "d5" in _members(told)
    children.facts, children.said = _NOTHING, []
    line = await live.carry_out(_request("remove", name="d5"))
    assert "no device of this node any more" in line
    assert children.acts() == ["hold d5", "count d5", "drop d5"]
    assert "d5" not in _members(told)
    path = told.devices[5]
    assert path not in live.told.device_paths
    os.close(directory_layout.lock(path, "whoever takes it next"))
    # The configuration names it still: no start stumbles over it.
    again = node_file.with_added_devices(told)
    assert path not in again.device_paths
    assert [row.state for row in device_listing.survey(told)] == ["present"] * 6
    # It was emptied, so it may join anew.
    assert "added device d5" in await live.carry_out(_request("add", path=str(path)))
    assert path in node_file.with_added_devices(told).device_paths
    assert device_listing.survey(told)[5].state == "present"


async def test_a_refused_removal_is_undone_with_the_retirement(
    live: live_devices.LiveDevices, children: Children
) -> None:
    await live.carry_out(_request("retire", name="d5"))
    children.facts = {**_NOTHING, "zones_count": 1}
    with pytest.raises(errors.StoreReadOnlyError):
        await live.carry_out(_request("remove", name="d5"))
    children.said = []
    undone = control_socket.Request(command="retire", name="d5", undo=True)
    assert "in service again" in await live.carry_out(undone)
    assert children.acts() == ["reread d5", "employ d5"]


async def test_a_lost_device_is_replaced_at_its_path_under_its_name(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    path = told.devices[3]
    shutil.rmtree(path)
    _empty(path)
    line = await live.carry_out(_request("replace", name="d3", path=str(path)))
    assert "in place of device d3, whose shards are rebuilt" in line
    assert children.acts() == ["drop d3", "open new", "employ new", "drop d3"]
    rows = [row for row in device_listing.survey(told) if row.label == "d3"]
    assert [row.state for row in rows] == ["present", "missing"]
    # Of two with the name it is clear which one is forgotten.
    children.said = []
    await live.carry_out(_request("remove", name="d3"))
    assert children.acts()[-1] == "drop d3"
    assert [row.state for row in device_listing.survey(told)] == ["present"] * 7
    assert live.summary == {"devices_count": 7, "missing_count": 0}


async def test_a_living_device_retires_for_the_one_in_its_place(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    path = _empty(told.data_dir / "d7")
    line = await live.carry_out(_request("replace", name="d0", path=str(path)))
    assert "in place of device d0; device d0 is retiring" in line
    assert children.acts() == ["open new", "employ new", "reread d0"]
    # After a crash in between the same command finishes it.
    children.said = []
    await live.carry_out(_request("replace", name="d0", path=str(path)))
    assert children.acts() == ["reread d0"]
    with pytest.raises(errors.ConfigurationError, match="is device d1 itself"):
        await live.carry_out(_request("replace", name="d1", path=str(told.devices[1])))


async def test_a_device_comes_back_wherever_it_is_attached(
    live: live_devices.LiveDevices,
    children: Children,
    told: settings.Settings,
    tmp_path: pathlib.Path,
) -> None:
    copy = tmp_path / "copy-of-d4"
    shutil.copytree(told.devices[4], copy)
    with pytest.raises(errors.DuplicateDeviceError, match="are the same device d4"):
        await live.carry_out(_request("attach", path=str(copy)))
    moved = told.devices[4].rename(tmp_path / "elsewhere")
    children.in_service = False
    line = await live.carry_out(_request("attach", path=str(moved)))
    assert line == f"device d4 at {moved} is in service again"
    assert children.said[-2:] == [("open", "d4", True), ("employ", "d4", False)]
    # From then on every other copy is an old one.
    moved.rename(tmp_path / "away")
    with pytest.raises(errors.StaleDeviceError, match="is an old copy of device d4"):
        await live.carry_out(_request("attach", path=str(copy)))


async def test_a_device_that_failed_comes_back_at_its_place(
    live: live_devices.LiveDevices, children: Children, told: settings.Settings
) -> None:
    children.in_service = False
    # Its lock is held by this very node.
    line = await live.carry_out(_request("add", path=str(told.devices[4])))
    assert line.endswith(f"device d4 at {told.devices[4]} is in service again")
    assert len(live.lock_fds) == 7


async def test_too_few_devices_would_stay(
    live: live_devices.LiveDevices, told: settings.Settings
) -> None:
    for name in ("d0", "d1", "d2", "d3"):
        await live.carry_out(_request("retire", name=name))
    with pytest.raises(errors.StoreReadOnlyError, match="2 devices would stay in service"):
        await live.carry_out(_request("retire", name="d4"))
    await live.carry_out(_request("remove", name="d0"))
    with pytest.raises(errors.ConfigurationError, match="5 devices would be left and 4"):
        await live.carry_out(_request("remove", name="d1"))


@pytest.mark.parametrize("crash_before", ["format_one", "save"])
async def test_a_supervisor_that_dies_while_a_device_joins(
    live: live_devices.LiveDevices,
    told: settings.Settings,
    monkeypatch: pytest.MonkeyPatch,
    crash_before: str,
) -> None:
    path = _empty(told.data_dir / "d7")

    def crash(*_: object, **__: object) -> None:
        raise errors.NodeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(node_file if crash_before == "save" else device_set, crash_before, crash)
        with pytest.raises(errors.NodeError, match="the power failed"):
            await live.carry_out(_request("add", path=str(path)))
    assert not live.held
    started = node_file.with_added_devices(dataclasses.replace(told))
    assert len(device_set.open_all(started, node_file.load(told))) == 7
    assert "added device d7" in await live.carry_out(_request("add", path=str(path)))
