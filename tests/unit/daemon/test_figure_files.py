"""Figures never lie in a hole of their file: a full file system must not end the process."""

from __future__ import annotations

import errno
import logging
import os
import pathlib

import prometheus_client
import pytest
from prometheus_client import mmap_dict, registry, values

from couchestor_daemon.app import child_status, figure_files, metrics


@pytest.fixture
def counter(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> prometheus_client.Counter:
    monkeypatch.setenv(metrics.DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    monkeypatch.setattr(values, "MmapedDict", mmap_dict.MmapedDict)
    metrics.join("worker-0")
    return prometheus_client.Counter(
        "looks", "Looks", ["name"], registry=registry.CollectorRegistry()
    )


def _has_holes(path: pathlib.Path) -> bool:
    found = path.stat()
    return found.st_blocks * 512 < found.st_size


def test_a_file_has_all_its_blocks_also_when_it_grows(
    tmp_path: pathlib.Path, counter: prometheus_client.Counter
) -> None:
    counter.labels("first").inc()
    (file,) = tmp_path.glob("*.db")
    assert file.stat().st_size == figure_files.INITIAL_BYTES
    assert not _has_holes(file)
    for number in range(1000):
        counter.labels(f"label {number}").inc(number)
    assert file.stat().st_size > figure_files.INITIAL_BYTES
    assert not _has_holes(file)
    page = metrics.page(tmp_path, child_status.Board()).decode()
    assert 'looks_total{name="first"} 1.0' in page
    assert 'looks_total{name="label 999"} 999.0' in page


def test_what_a_process_left_behind_is_reserved_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "counter_worker-0.db"
    with path.open("wb") as file:
        file.truncate(4 * figure_files.INITIAL_BYTES)
    figure_files.ReservedDict(str(path)).close()  # type: ignore[no-untyped-call]
    assert not _has_holes(path)


def test_without_room_figures_stay_in_the_process_and_that_is_said_once(
    tmp_path: pathlib.Path,
    counter: prometheus_client.Counter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter.labels("before").inc()

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            counter.labels(f"label {number}").inc()
    assert [record.reason for record in caplog.records] == ["No space left on device"]  # type: ignore[attr-defined]
    assert counter.labels("label 999")._value.get() == 1
    page = metrics.page(tmp_path, child_status.Board()).decode()
    assert 'looks_total{name="before"} 1.0' in page
    assert 'looks_total{name="label 0"} 1.0' in page
    assert "label 999" not in page
