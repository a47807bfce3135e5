"""Request durations counted by one process and read by another."""

from __future__ import annotations

import pathlib

import pytest

from couchestor_daemon.adapters import latency_board


def test_a_reader_sees_what_all_slots_counted_since_it_looked(tmp_path: pathlib.Path) -> None:
    first, second = (latency_board.LatencyRecorder(tmp_path, slot) for slot in (0, 1))
    first.observe(1e-3)
    board = latency_board.LatencyBoard(tmp_path)
    for _ in range(97):
        first.observe(1e-3)
    for _ in range(3):
        second.observe(0.5)
    seen = board.take()
    assert seen.requests_count == 100
    assert seen.percentile_seconds(50) == pytest.approx(1e-3, rel=0.2)
    assert seen.percentile_seconds(99) == pytest.approx(0.5, rel=0.2)
    assert board.take().requests_count == 0
    first.close()
    second.close()


def test_a_restarted_slot_goes_on_counting(tmp_path: pathlib.Path) -> None:
    before = latency_board.LatencyRecorder(tmp_path, 0)
    before.observe(1.0)
    before.close()
    board = latency_board.LatencyBoard(tmp_path)
    after = latency_board.LatencyRecorder(tmp_path, 0)
    after.observe(1.0)
    assert board.take().requests_count == 1
    after.close()


def test_nobody_counting_is_no_request(tmp_path: pathlib.Path) -> None:
    board = latency_board.LatencyBoard(tmp_path / "not made yet")
    assert board.take().requests_count == 0
    assert board.take().percentile_seconds(99) == 0.0


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 1e-6, 3e-4, 0.1, 200.0, 1e9])
def test_every_duration_has_a_bucket_that_is_not_below_it(
    tmp_path: pathlib.Path, seconds: float
) -> None:
    recorder = latency_board.LatencyRecorder(tmp_path, 0)
    board = latency_board.LatencyBoard(tmp_path)
    recorder.observe(seconds)
    found = board.take().percentile_seconds(100)
    assert found >= min(seconds, latency_board.BOUNDS_SECONDS[-1])
    assert found <= max(seconds * 1.2, 1e-6)
    recorder.close()


def test_files_that_vanish_are_not_negative_time(tmp_path: pathlib.Path) -> None:
    recorder = latency_board.LatencyRecorder(tmp_path, 0)
    recorder.observe(1.0)
    board = latency_board.LatencyBoard(tmp_path)
    (tmp_path / "latency-0").unlink()
    assert board.take().requests_count == 0
    recorder.close()
