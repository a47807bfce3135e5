"""A storage policy as decisions use it: parsed, checked, in seconds and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from couchestor_domain import errors, tiers
from couchestor_operator.control import selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """Where the tiers meet, in IOPS: below low is cold, above high is hot.

    ``warm_iops`` is where the other tiers end for a volume that is in them already: a hot volume
    stays hot down to it, a cold one cold up to it. None: there is no warm tier, and a volume
    between low and high stays where it is.

    Raises:
        InvalidPolicyError: not low < warm < high.
    """

    low_iops: float
    warm_iops: float | None
    high_iops: float

    def __post_init__(self) -> None:
        warm_iops = self.warm_iops
        ordered = (
            self.low_iops < self.high_iops
            if warm_iops is None
            else self.low_iops < warm_iops < self.high_iops
        )
        if not ordered:
            raise errors.InvalidPolicyError(
                f"the watermarks low {self.low_iops:g}, warm {warm_iops or 0:g}, high "
                f"{self.high_iops:g} must rise in this order (warm 0: no warm tier)",
                field="highWatermarkIOPS",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which volumes are watched and when they move."""

    name: str
    created_at_seconds: float
    """Since the epoch; older policies win where two want the same volume."""
    watermarks: Watermarks
    sampling_window_seconds: float
    cooldown_seconds: float
    migration_timeout_seconds: float
    storage_class: str
    pool_selectors: Mapping[tiers.Tier, selector.Selector]
    """Tiers without a selector have no pools: nothing moves there."""
    volume_selector: selector.Selector = field(default_factory=selector.Selector)
    migrations_count_max: int = 1
    enabled: bool = True
    dry_run: bool = False
    ec_policy: str | None = None
    ec_volume_bytes_min: int = 0

    def tier_of(self, pool_labels: Mapping[str, str]) -> tiers.Tier | None:
        """The tier that a pool with these labels belongs to: the fastest whose selector matches."""
        for tier in tiers.Tier:
            wanted = self.pool_selectors.get(tier)
            if wanted is not None and wanted.matches(pool_labels):
                return tier
        return None
