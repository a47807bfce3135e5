"""How many files may be open: the soft limit is raised, and devices leave half of it to others."""

from __future__ import annotations

import resource

import pytest

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import descriptors

_ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 4096),
        (1024, 1 << 30, descriptors.WANTED_COUNT),
        (1024, _ENDLESS, descriptors.WANTED_COUNT),
        (4096, 4096, None),
        (1 << 21, 1 << 21, None),
        (_ENDLESS, _ENDLESS, None),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_helps(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int | None
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    descriptors.raise_limit()
    assert told == ([] if expected is None else [(expected, hard)])


@pytest.mark.parametrize(
    ("limit", "devices_count", "expected"),
    [
        (1024, 6, 28),
        (1024, 100, 8),
        (1 << 20, 6, directory_device.OPEN_FILES_COUNT_MAX),
        (_ENDLESS, 6, directory_device.OPEN_FILES_COUNT_MAX),
    ],
)
def test_devices_keep_half_of_the_descriptors_at_most(
    monkeypatch: pytest.MonkeyPatch, limit: int, devices_count: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert descriptors.files_per_device(devices_count) == expected
