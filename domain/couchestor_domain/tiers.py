"""Where data lives by how often it is used."""

from __future__ import annotations

import enum


class Tier(enum.Enum):
    """Storage tiers, fastest first."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
