"""The tier a volume belongs in, by its heat and by where it is."""

from __future__ import annotations

from couchestor_domain import tiers
from couchestor_operator.control import policy


def classify(
    iops: float, *, watermarks: policy.Watermarks, current: tiers.Tier | None
) -> tiers.Tier | None:
    """The tier for a volume of a known heat; None where it may stay in whichever it is.

    Between the watermarks a volume keeps its tier until it crosses the warm one: load that swings
    about a watermark moves nothing.

    Args:
        current: The tier the volume is in, or moves to; None if it is in none or in several.
    """
    if iops > watermarks.high_iops:
        return tiers.Tier.HOT
    if iops < watermarks.low_iops:
        return tiers.Tier.COLD
    if watermarks.warm_iops is None:
        return current
    if current is tiers.Tier.HOT and iops >= watermarks.warm_iops:
        return tiers.Tier.HOT
    if current is tiers.Tier.COLD and iops <= watermarks.warm_iops:
        return tiers.Tier.COLD
    return tiers.Tier.WARM
