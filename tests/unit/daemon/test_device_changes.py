"""Devices join and retire: what is refused, and what a crash at each line leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil

import pytest

from couchestor_daemon.adapters import directory_layout
from couchestor_daemon.app import (
    check_command,
    data_dir_lock,
    device_changes,
    device_listing,
    device_set,
    node_commands,
    node_file,
    option_table,
    preparation,
    settings,
    stop_mark,
)
from couchestor_daemon.formats import media_records
from couchestor_domain import errors, ids, units


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    """A node of six small devices that has started once."""
    made = settings.Settings(
        data_dir=tmp_path / "node",
        device_capacity_bytes=32 * units.MIB,
        zone_bytes=units.MIB,
        stripe_bytes=units.MIB,
        workers=1,
    )
    made.data_dir.mkdir()
    _start(made)
    return made


def _start(told: settings.Settings) -> list[str]:
    """What a start does to devices; the labels of those that may be given zones."""
    told = node_file.with_added_devices(told)
    membership = node_file.load(told)
    device_set.format_first(told, membership)
    devices = device_set.open_all(told, membership)
    device_set.join_all(told, devices, membership)
    for device in devices.values():
        device.close()
    return sorted(d.identity.label for d in devices.values() if not d.identity.retiring)


def _folder(path: pathlib.Path) -> pathlib.Path:
    path.mkdir(parents=True)
    return path


def _states(told: settings.Settings) -> dict[str, str]:
    return {row.label: row.state for row in device_listing.survey(told)}


def test_an_added_device_is_used_from_the_next_start_on_without_configuration(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    line = device_changes.add(told, _folder(tmp_path / "disk6"), failure_domain="shelf-b")
    assert "added device disk6" in line
    for _ in range(2):
        assert _start(told) == ["d0", "d1", "d2", "d3", "d4", "d5", "disk6"]
    row = device_listing.survey(told)[-1]
    assert (row.state, row.failure_domain, row.health) == ("present", "shelf-b", "good")
    assert row.capacity_bytes == 32 * units.MIB


def test_naming_an_added_device_in_the_configuration_too_is_fine(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    path = _folder(tmp_path / "disk6")
    device_changes.add(told, path)
    both = dataclasses.replace(told, devices=(*told.device_paths, path))
    assert len(_start(both)) == 7
    moved = path.rename(tmp_path / "elsewhere")
    both = dataclasses.replace(told, devices=(*told.device_paths, moved))
    assert len(_start(both)) == 7
    assert len(device_listing.survey(both)) == 7


def test_a_wider_coding_counts_added_devices(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    flags = {"data_dir": str(told.data_dir), "data_shards": "5"}
    with pytest.raises(errors.ConfigurationError, match="needs 7 devices, 6 are configured"):
        option_table.load(flags, {}, system_config=pathlib.Path("/nonexistent"))
    device_changes.add(told, _folder(tmp_path / "disk6"))
    loaded = option_table.load(flags, {}, system_config=pathlib.Path("/nonexistent"))
    assert loaded.data_shards == 5


@pytest.mark.parametrize("crash_before", ["format_one", "save"])
def test_an_interrupted_add_harms_nothing_and_is_finished_by_repeating_it(
    told: settings.Settings,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    crash_before: str,
) -> None:
    path = _folder(tmp_path / "disk6")

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(node_file if crash_before == "save" else device_set, crash_before, crash)
        with pytest.raises(KeyboardInterrupt):
            device_changes.add(told, path, label="first-try")
    assert len(_start(told)) == 6
    device_changes.add(told, path, label="d6")
    assert "d6" in _start(told)
    if crash_before == "save":
        named = dataclasses.replace(told, devices=(*told.device_paths, path))
        assert len(_start(named)) == 7


def test_a_configured_device_whose_add_was_interrupted_is_refused_by_name(
    told: settings.Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _folder(tmp_path / "disk6")
    named = dataclasses.replace(told, devices=(*told.device_paths, path))
    with monkeypatch.context() as patch:
        patch.setattr(node_file, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            device_changes.add(named, path)
    with pytest.raises(errors.ForeignDeviceError, match=f"couchestor device add {path}"):
        _start(named)
    device_changes.add(named, path)
    assert len(_start(named)) == 7


def test_an_empty_folder_in_the_configuration_is_served_around_until_it_is_added(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    path = _folder(tmp_path / "disk6")
    named = dataclasses.replace(told, devices=(*told.device_paths, path))
    assert len(_start(named)) == 6
    assert _states(named)["disk6"] == "missing"
    device_changes.add(named, path)
    assert len(_start(named)) == 7


def test_a_replaced_medium_takes_the_place_and_name_of_the_lost_one(
    told: settings.Settings,
) -> None:
    path = told.device_paths[3]
    shutil.rmtree(path)
    path.mkdir()
    assert len(_start(told)) == 5
    device_changes.add(told, path)
    assert _start(told) == ["d0", "d1", "d2", "d3", "d4", "d5"]
    rows = [row for row in device_listing.survey(told) if row.label == "d3"]
    assert [row.state for row in rows] == ["present", "missing"]


def test_what_cannot_join_is_refused_by_name(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    other = dataclasses.replace(told, data_dir=_folder(tmp_path / "other"))
    _start(other)
    full = _folder(tmp_path / "full")
    (full / "holiday.jpg").touch()
    empty = _folder(tmp_path / "empty")
    cases: list[tuple[pathlib.Path, str, type[errors.CouchestorError], str]] = [
        (tmp_path / "absent", "", errors.DeviceGoneError, "absent is not a folder"),
        (full, "", errors.ForeignDeviceError, "full is not empty"),
        (other.device_paths[1], "", errors.ForeignDeviceError, "is device d1 of node"),
        (told.device_paths[2], "", errors.DuplicateDeviceError, "device d2 of this node already"),
        (empty, "d4", errors.DuplicateDeviceError, "label d4 is taken by the device at"),
        (empty, "two words", errors.ConfigurationError, "--label"),
    ]
    for path, label, kind, text in cases:
        with pytest.raises(kind, match=text):
            device_changes.add(told, path, label=label)
    assert list(full.iterdir()) == [full / "holiday.jpg"]
    assert len(_start(told)) == 6
    with pytest.raises(errors.ConfigurationError, match="there is no node under"):
        device_changes.add(dataclasses.replace(told, data_dir=tmp_path / "no"), empty)
    assert not (tmp_path / "no").exists()


def test_a_running_node_is_refused_and_unchanged(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    before = node_file.path_of(told).read_bytes()
    lock = data_dir_lock.take(told)
    try:
        with pytest.raises(errors.ConfigurationError, match="stop it, then repeat"):
            device_changes.add(told, _folder(tmp_path / "disk6"))
        with pytest.raises(errors.ConfigurationError, match="stop it, then repeat"):
            device_changes.retire(told, "d1")
    finally:
        os.close(lock)
    assert node_file.path_of(told).read_bytes() == before
    assert not list((tmp_path / "disk6").iterdir())


def test_the_files_of_another_user_are_left_alone(
    told: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_ino for path in told.data_dir.rglob("identity")}
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for act in (
        lambda: device_changes.retire(told, "d1"),
        lambda: node_commands.recover(told),
        lambda: check_command.check(told),
    ):
        with pytest.raises(errors.ConfigurationError, match="run this as that user"):
            act()
    assert {path: path.stat().st_ino for path in told.data_dir.rglob("identity")} == before


def test_a_folder_that_another_process_is_adding_is_refused(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    path = _folder(tmp_path / "disk6")
    lock = directory_layout.lock(path, "elsewhere")
    try:
        with pytest.raises(errors.DeviceInUseError, match=f"{path} is held"):
            device_changes.add(told, path)
    finally:
        os.close(lock)
    assert len(node_file.load(told).members) == 6  # type: ignore[union-attr]


def test_a_retiring_device_is_given_nothing_until_that_is_undone(told: settings.Settings) -> None:
    line = device_changes.retire(told, "d2")
    assert "new stripes are 3+2, not 4+2" in line
    for _ in range(2):
        assert _start(told) == ["d0", "d1", "d3", "d4", "d5"]
        assert _states(told)["d2"] == "retiring"
    # The flag stands on the device: it does not need node.json.
    node_file.path_of(told).unlink()
    assert _start(told) == ["d0", "d1", "d3", "d4", "d5"]
    device_changes.retire(told, "d2", undo=True)
    assert "d2" in _start(told)


def test_too_few_devices_would_stay(told: settings.Settings) -> None:
    device_changes.retire(told, "d0")
    device_changes.retire(told, "d1")
    shutil.rmtree(told.device_paths[5])
    with pytest.raises(errors.StoreReadOnlyError, match="2 devices would stay in service and 3"):
        device_changes.retire(told, "d2")
    copies = dataclasses.replace(told, journal_replicas=4)
    with pytest.raises(errors.StoreReadOnlyError, match="4 copies of the log"):
        device_changes.retire(copies, "d2")
    assert _start(told) == ["d2", "d3", "d4"]


def test_only_a_device_that_is_there_can_retire(told: settings.Settings) -> None:
    shutil.rmtree(told.device_paths[5])
    with pytest.raises(errors.ConfigurationError, match="d5 is missing"):
        device_changes.retire(told, "d5")
    with pytest.raises(errors.ConfigurationError, match="this node has d0, d1, d2, d3, d4"):
        device_changes.retire(told, "d9")


def test_a_missing_device_is_warned_of_once_by_a_start(
    told: settings.Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="couchestor.devices")
    shutil.rmtree(told.device_paths[5])
    _start(told)
    for device in device_set.open_all(told, node_file.load(told)).values():  # as each process does
        device.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"device {told.device_paths[5]} is missing and is served around: ")


def test_an_interrupted_first_start_is_gone_on_with(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    fresh = dataclasses.replace(told, data_dir=_folder(tmp_path / "fresh"))
    device_set.format_first(dataclasses.replace(fresh, devices=fresh.device_paths[:2]), None)
    assert len(_start(fresh)) == 6
    membership = node_file.load(fresh)
    assert membership is not None
    assert len(membership.members) == 6


def test_a_folder_named_twice_is_refused_before_it_is_formatted(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    disk, link = _folder(tmp_path / "disk"), tmp_path / "link"
    link.symlink_to(disk)
    fresh = dataclasses.replace(
        told,
        data_dir=_folder(tmp_path / "fresh"),
        devices=(*(tmp_path / f"new{number}" for number in range(5)), disk, link),
    )
    with pytest.raises(errors.DuplicateDeviceError, match=f"{disk} and {link} are the same folder"):
        device_set.format_first(fresh, None)
    assert list(disk.iterdir()) == []


def test_a_start_without_node_json_wants_enough_of_the_devices(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    for number in range(6, 9):
        device_changes.add(told, _folder(tmp_path / f"disk{number}"))
    _start(told)
    node_file.path_of(told).unlink()
    with pytest.raises(errors.ConfigurationError, match="only 6 of the node's 9 devices"):
        _start(told)
    named = dataclasses.replace(told, devices=(*told.device_paths, tmp_path / "disk6"))
    assert len(_start(named)) == 7


def test_version_1_of_node_json_is_read(told: settings.Settings) -> None:
    membership = node_file.load(told)
    assert membership is not None
    epochs = {key: member.joined_epoch for key, member in membership.members.items()}
    document = {"node_id": membership.node_id, "joined_epochs": epochs}
    node_file.path_of(told).write_text(json.dumps(document))
    assert len(_start(told)) == 6
    written = json.loads(node_file.path_of(told).read_text())
    assert written["version"] == 2
    node_file.path_of(told).write_text(json.dumps({**written, "version": 3}))
    with pytest.raises(errors.ConfigurationError, match="version 3 is unknown"):
        node_file.load(told)


def test_refused_devices_are_listed_with_the_reason(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    other = dataclasses.replace(told, data_dir=_folder(tmp_path / "other"))
    _start(other)
    stale = tmp_path / "d1-copy"
    shutil.copytree(told.device_paths[1], stale)
    _start(told)
    shutil.rmtree(told.device_paths[5])
    paths = (
        *told.device_paths,
        other.device_paths[0],
        stale,
    )
    text = device_listing.table(device_listing.survey(dataclasses.replace(told, devices=paths)))
    assert "d0: refused" in text
    assert "is an old copy of device d1" in text
    assert "d5: missing" in text
    twice = (*told.device_paths, tmp_path / "link")
    (tmp_path / "link").symlink_to(told.device_paths[0])
    text = device_listing.table(device_listing.survey(dataclasses.replace(told, devices=twice)))
    assert "d0: refused: the same device as" in text
    with pytest.raises(errors.DuplicateDeviceError, match="are the same device d0"):
        _start(dataclasses.replace(told, devices=twice))
    # One lock cannot be taken twice: that must not look like another daemon.
    with pytest.raises(errors.DuplicateDeviceError, match="are the same device d0"):
        device_set.lock_all(twice)


def _with_index(told: settings.Settings, *used: ids.ZoneAddress) -> None:
    """What a clean stop leaves, with some zones in use."""
    with contextlib.closing(preparation.open_index(told)) as index, index.write() as txn:
        for zone in used:
            txn.put(
                media_records.zone_key(zone), media_records.pack(media_records.ZoneRecord(2, 7))
            )
        txn.commit()
    (preparation.index_dir(told) / "complete").write_text("node", encoding="ascii")
    stop_mark.write_clean(told.data_dir)


def _id_of(told: settings.Settings, label: str) -> ids.DeviceId:
    return ids.DeviceId(
        next(row.device_id for row in device_listing.survey(told) if row.label == label)
    )


@pytest.mark.may_block
def test_an_empty_device_leaves_a_stopped_node(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.ConfigurationError, match="is in service: `couchestor device retire"):
        device_changes.remove(told, "d2")
    device_changes.retire(told, "d2")
    with pytest.raises(errors.ConfigurationError, match="5 devices would be left and 4"):
        device_changes.remove(told, "d2")
    device_changes.add(told, _folder(tmp_path / "disk6"))
    with pytest.raises(errors.ConfigurationError, match="nobody can say what is on the device"):
        device_changes.remove(told, "d2")
    zone = ids.ZoneAddress(_id_of(told, "d2"), ids.ZoneIndex(3))
    _with_index(told, zone)
    with pytest.raises(errors.StoreReadOnlyError, match="refers to 1 zones"):
        device_changes.remove(told, "d2")
    with contextlib.closing(preparation.open_index(told)) as index, index.write() as txn:
        txn.delete(media_records.zone_key(zone))
        txn.commit()
    line = device_changes.remove(told, str(told.device_paths[2]))
    assert line == f"device d2 at {told.device_paths[2]} is no device of this node any more"
    for _ in range(2):
        assert _start(told) == ["d0", "d1", "d3", "d4", "d5", "disk6"]
    assert "d2" not in _states(told)
    with pytest.raises(errors.ConfigurationError, match="no device is called d2"):
        device_changes.remove(told, "d2")


def test_a_device_is_replaced_while_the_node_is_stopped(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    seventh = _folder(tmp_path / "disk6")
    line = device_changes.replace(told, "d1", seventh)
    assert "in place of device d1: it retires" in line
    assert _start(told) == ["d0", "d2", "d3", "d4", "d5", "disk6"]
    lost = told.device_paths[3]
    shutil.rmtree(lost)
    line = device_changes.replace(told, "d3", _folder(lost))
    assert "in place of device d3: its shards are rebuilt" in line
    assert _start(told) == ["d0", "d2", "d3", "d4", "d5", "disk6"]


def test_a_replacement_that_would_leave_too_few_is_refused_before_anything_changes(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    for name in ("d0", "d1", "d2"):
        device_changes.retire(told, name)
    copies = dataclasses.replace(told, journal_replicas=4)
    seventh = _folder(tmp_path / "disk6")
    with pytest.raises(errors.StoreReadOnlyError, match="3 devices would stay in service and 4"):
        device_changes.replace(copies, "d3", seventh)
    assert not list(seventh.iterdir())


def test_a_device_that_moved_is_attached_to_a_stopped_node(
    told: settings.Settings, tmp_path: pathlib.Path
) -> None:
    stale = tmp_path / "old-copy"
    shutil.copytree(told.device_paths[4], stale)
    _start(told)
    moved = told.device_paths[4].rename(tmp_path / "elsewhere")
    assert len(_start(told)) == 5
    with pytest.raises(errors.StaleDeviceError, match="is an old copy of device d4"):
        device_changes.attach(told, stale)
    assert f"device d4 is at {moved}" in device_changes.attach(told, moved)
    assert "d4" in _start(told)
    other = dataclasses.replace(told, data_dir=_folder(tmp_path / "other"))
    _start(other)
    with pytest.raises(errors.ForeignDeviceError, match="of node"):
        device_changes.attach(told, other.device_paths[0])
    with pytest.raises(errors.DeviceError, match="no identity"):
        device_changes.attach(told, _folder(tmp_path / "empty"))
