"""The two ends of a node's run: what a stop leaves and what the next start makes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable

import pytest

from couchestor_daemon.adapters import lmdb_index
from couchestor_daemon.app import (
    check_command,
    device_set,
    node_commands,
    preparation,
    settings,
    stop_mark,
)
from couchestor_daemon.formats import zone_header
from couchestor_daemon.services import recovery_table, replay
from couchestor_domain import errors, ids, units

Boot = pathlib.Path


@pytest.fixture
def told(tmp_path: pathlib.Path) -> settings.Settings:
    return settings.Settings(
        data_dir=tmp_path / "node", device_capacity_bytes=16 * units.MIB, zone_bytes=units.MIB
    )


@pytest.fixture
def boot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """The file that tells one boot from another."""
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    monkeypatch.setattr(stop_mark, "BOOT_ID_PATH", path)
    return path


def action_of_a_start(told: settings.Settings) -> str:
    return preparation.prepare(told).action


def running_node(told: settings.Settings) -> None:
    """A first start and something committed, as workers would; then they end or die."""
    assert action_of_a_start(told) == "initialise"
    index = preparation.open_index(told)
    with index.write() as txn:
        txn.put(b"oobject", b"value")
        txn.commit()
    index.close()


def has_object(told: settings.Settings) -> bool:
    index = preparation.open_index(told)
    with index.read() as reader:
        found = reader.get(b"oobject")
    index.close()
    return found == b"value"


def make_log(told: settings.Settings) -> None:
    """Enough for a start to believe there is a log; it never committed the object."""
    device = told.device_paths[0] / "zones" / "00000000.zone"
    member = ids.ZoneAddress(ids.DeviceId("0" * 32), ids.ZoneIndex(0))
    header = zone_header.ZoneHeader(zone_header.ZoneRole.SEGMENT, 0, 0, 0, 1, 2, (member,))
    device.write_bytes(zone_header.pack(header))


def test_after_a_clean_stop_the_index_is_used_in_any_boot(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    make_log(told)
    preparation.conclude(told)
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CLEAN
    boot.write_text("second\n")
    assert action_of_a_start(told) == "use"
    assert has_object(told)
    # The mark is spent: what this start changes is not synced.
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_SAME_BOOT
    boot.write_text("third\n")
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_OTHER_BOOT


def test_after_a_crash_the_index_is_used_in_this_boot_and_rebuilt_in_another(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    make_log(told)
    assert action_of_a_start(told) == "use"
    assert has_object(told)
    boot.write_text("second\n")
    assert action_of_a_start(told) == "rebuild"
    assert not has_object(told), "the log is the truth"


@pytest.mark.parametrize("clean", [False, True])
def test_a_rebuild_that_is_cut_short_leaves_no_mark_that_trusts_an_index(
    told: settings.Settings, boot: Boot, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    running_node(told)
    make_log(told)
    if clean:
        preparation.conclude(told)

    class Death(BaseException):
        pass

    def dies(*arguments: object) -> None:
        # The folder as it would be had the renaming of the old index not become durable.
        (told.data_dir / "index.before-rebuild").rename(told.data_dir / "old")
        raise Death

    with monkeypatch.context() as patched:
        patched.setattr(replay, "rebuild", dies)
        with pytest.raises(Death):
            preparation.prepare(told, recover_asked=True)
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_OTHER_BOOT
    (told.data_dir / "index").rename(told.data_dir / "half")
    (told.data_dir / "old").rename(told.data_dir / "index")
    assert action_of_a_start(told) == "rebuild"


def test_the_mark_is_written_only_once_the_index_is_synced(
    told: settings.Settings, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_node(told)
    seen: list[recovery_table.LastStop] = []
    honest = lmdb_index.LmdbIndex.sync

    def sync(index: lmdb_index.LmdbIndex) -> None:
        seen.append(stop_mark.last_stop(told.data_dir))
        honest(index)

    monkeypatch.setattr(lmdb_index.LmdbIndex, "sync", sync)
    preparation.conclude(told)
    assert seen == [recovery_table.LastStop.CRASH_SAME_BOOT]

    def fails(index: lmdb_index.LmdbIndex) -> None:
        raise errors.IndexFullError("no room")

    assert action_of_a_start(told) == "use"
    monkeypatch.setattr(lmdb_index.LmdbIndex, "sync", fails)
    with pytest.raises(errors.IndexFullError):
        preparation.conclude(told)
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_SAME_BOOT


def test_without_a_whole_index_there_is_nothing_to_mark(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    (told.data_dir / "index" / "complete").unlink()
    preparation.conclude(told)
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_SAME_BOOT


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"clean": "yes"}', '{"boot_id": null}'])
def test_a_mark_that_says_nothing_is_taken_for_the_worst(
    told: settings.Settings, boot: Boot, text: str
) -> None:
    told.data_dir.mkdir()
    (told.data_dir / "running.json").write_text(text)
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_OTHER_BOOT


def test_the_mark_of_an_earlier_version_is_understood(told: settings.Settings, boot: Boot) -> None:
    told.data_dir.mkdir()
    (told.data_dir / "running.json").write_text(json.dumps({"boot_id": "first"}))
    assert stop_mark.last_stop(told.data_dir) is recovery_table.LastStop.CRASH_SAME_BOOT


def damage(told: settings.Settings, how: str) -> None:
    path = told.data_dir / "index" / "data.mdb"
    if how == "overwritten":
        with path.open("r+b") as file:
            file.write(b"\x55" * 4 * 4096)
    else:
        os.truncate(path, 4096 if how == "cut short" else 0)


@pytest.mark.parametrize("how", ["overwritten", "cut short", "emptied"])
@pytest.mark.parametrize("by", ["a start", "recover"])
def test_a_damaged_index_is_kept_aside_and_rebuilt(
    told: settings.Settings, boot: Boot, how: str, by: str
) -> None:
    running_node(told)
    make_log(told)
    preparation.conclude(told)
    damage(told, how)
    if by == "recover":
        assert node_commands.recover(told).startswith("rebuilt the index from ")
    else:
        assert action_of_a_start(told) == "rebuild"
    assert not has_object(told), "the log is the truth"
    assert (told.data_dir / "index.before-rebuild" / "data.mdb").exists()
    assert action_of_a_start(told) == "use"


def test_a_damaged_index_is_left_alone_while_no_device_holds_a_log(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    damage(told, "overwritten")
    with pytest.raises(errors.ConfigurationError, match="no present device holds a log"):
        action_of_a_start(told)
    assert (told.data_dir / "index" / "data.mdb").stat().st_size > 4096


def test_an_index_that_may_not_be_opened_is_not_taken_for_a_damaged_one(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    make_log(told)
    path = told.data_dir / "index" / "data.mdb"
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    with pytest.raises(errors.IndexCorruptError, match="Is a directory"):
        action_of_a_start(told)
    assert not (told.data_dir / "index.before-rebuild").exists()


@pytest.mark.parametrize("command", [node_commands.recover, check_command.check])
def test_no_node_is_made_where_none_was(
    told: settings.Settings, boot: Boot, command: Callable[[settings.Settings], object]
) -> None:
    told.data_dir.mkdir()
    (told.data_dir / "precious.txt").touch()
    with pytest.raises(errors.ConfigurationError, match="there is no node under"):
        command(told)
    assert [path.name for path in told.data_dir.iterdir()] == ["precious.txt"]


def test_a_first_start_that_was_cut_short_is_no_node_yet(
    told: settings.Settings, boot: Boot
) -> None:
    path = told.device_paths[0]
    path.mkdir(parents=True)
    identity = device_set.new_identity(told, path, ids.NodeId("a" * 32))
    device_set.format_one(told, path, identity)
    with pytest.raises(errors.ConfigurationError, match="there is no node under"):
        node_commands.recover(told)
    assert not any(other.exists() for other in told.device_paths[1:])
    assert action_of_a_start(told) == "initialise"


def test_a_node_is_known_by_its_devices_when_its_file_is_lost(
    told: settings.Settings, boot: Boot
) -> None:
    running_node(told)
    make_log(told)
    (told.data_dir / "node.json").unlink()
    assert node_commands.recover(told).endswith("on 6 devices (0 missing)")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/dev/null", "/dev/null is not a folder, and a device is one: name another"),
        ("/dev/null/d0", "/dev/null/d0 of a device: Not a directory; make it, or name another"),
        ("/proc/d0", "/proc/d0 of a device: No such file or directory; make it"),
    ],
)
def test_a_device_that_can_be_no_folder_is_one_line(
    told: settings.Settings, boot: Boot, place: str, words: str
) -> None:
    others = tuple(told.data_dir / f"d{number}" for number in range(5))
    told = dataclasses.replace(told, devices=(*others, pathlib.Path(place)))
    with pytest.raises(errors.ConfigurationError, match=words):
        preparation.prepare(told)
