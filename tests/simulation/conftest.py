"""Lets the modules here import each other by name; what several of them use."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import Iterator

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
for _folder in (_ROOT, *(_ROOT / name for name in ("domain", "daemon", "gateway"))):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Faults are injected by the thousand: each one logged would bury a failure."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
