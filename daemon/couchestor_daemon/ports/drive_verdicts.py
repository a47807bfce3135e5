"""How far the node trusts its devices: the words between who judges and who goes by it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from couchestor_domain import ids


class Standing(enum.IntEnum):
    """How far the node trusts a device."""

    TRUSTED = 0
    SUSPECTED = 1
    """Used as before, but reads decode around it if it is slow."""
    HELD = 2
    """Given no new zones as well."""


class Verdict(NamedTuple):
    """What every process is to know of a device that is not trusted."""

    device_id: ids.DeviceId
    standing: Standing
    is_slow: bool
    """Reads do better without it."""
    text: str
    """Why, for people."""
