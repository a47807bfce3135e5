"""What one process says of devices, as others hear it."""

from __future__ import annotations

import pathlib

from couchestor_daemon.adapters import drive_board, verdict_board
from couchestor_daemon.app import drive_counting
from couchestor_daemon.ports import drive_verdicts
from couchestor_domain import events, ids

A, B = ids.DeviceId("a" * 32), ids.DeviceId("b" * 32)
HELD = drive_verdicts.Verdict(A, drive_verdicts.Standing.HELD, True, "slow: 40 ms")
ROTTEN = drive_verdicts.Verdict(B, drive_verdicts.Standing.SUSPECTED, False, "errors: ätsch")


def test_what_is_written_is_read_whole_and_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    writer, reader = (verdict_board.VerdictBoard(tmp_path) for _ in range(2))
    assert reader.read() == (0, [])
    writer.write([HELD, ROTTEN])
    assert reader.read() == (reader.version(), [HELD, ROTTEN])
    seen = reader.version()
    writer.write([ROTTEN])
    assert reader.version() > seen
    found = reader.read()
    assert found is not None
    assert found[1] == [ROTTEN]
    writer.close()
    reader.close()


def test_nobody_goes_by_what_is_half_written(tmp_path: pathlib.Path) -> None:
    board = verdict_board.VerdictBoard(tmp_path)
    board.write([HELD])
    with (tmp_path / verdict_board.FILE).open("r+b") as file:
        file.write(bytes([board.version() + 1]))
    assert board.version() % 2 == 1
    assert board.read() is None
    # Its writer died; the next one goes on.
    board.write([ROTTEN])
    found = board.read()
    assert found is not None
    assert found[1] == [ROTTEN]


def test_a_long_reason_is_cut_and_does_not_reach_the_next_row(tmp_path: pathlib.Path) -> None:
    board = verdict_board.VerdictBoard(tmp_path)
    board.write([HELD._replace(text="ä" * 5000), ROTTEN])
    found = board.read()
    assert found is not None
    assert set(found[1][0].text) == {"ä"}
    assert found[1][1] == ROTTEN


def test_a_process_learns_whom_it_is_not_to_trust(tmp_path: pathlib.Path) -> None:
    board = verdict_board.VerdictBoard(tmp_path)
    mistrust = drive_counting.Mistrust(tmp_path)
    assert not mistrust.look()
    board.write([HELD, ROTTEN])
    assert mistrust.look()
    assert (mistrust.slow(), mistrust.held()) == (frozenset({A}), frozenset({A}))
    assert not mistrust.look()
    board.write([])
    assert mistrust.look()
    assert (mistrust.slow(), mistrust.held()) == (frozenset(), frozenset())
    assert not drive_counting.Mistrust(None).look()


def test_a_wrong_place_counts_once_however_often_it_is_read(tmp_path: pathlib.Path) -> None:
    counting = drive_counting.DriveCounting(tmp_path, "worker-0")
    board = drive_board.DriveBoard(tmp_path)
    heard: list[events.DomainEvent] = []

    class Following:
        def publish(self, event: events.DomainEvent) -> None:
            heard.append(event)

    publisher = drive_counting.FaultPublisher(counting, Following())
    for offset, reason in (
        (0, "does not match its checksums"),
        (0, "does not match its checksums"),
        (4096, "another or no shard lies there"),
        (8192, "cannot be read: it is gone"),
    ):
        publisher.publish(
            events.ShardFailed(
                group_id=ids.GroupId(1),
                stripe_offset_bytes=offset,
                shard_index=2,
                device_id=A,
                reason=reason,
            )
        )
    assert board.take()[A].wrong_places_count == 2
    assert len(heard) == 4
