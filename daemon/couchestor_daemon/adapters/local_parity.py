"""How local reconstruction codes divide their parity, and what that costs; pure arithmetic."""

from __future__ import annotations

from typing import Final

from couchestor_domain import geometry

LOCAL_GROUPS: Final = 2


def local_count(shape: geometry.StripeGeometry) -> int:
    """Local parities of an LRC stripe: fixed by the geometry, so shards need not record it.

    With fewer than three parity shards two local ones would leave less than m = 2 tolerated.
    """
    return LOCAL_GROUPS if shape.parity_shards > LOCAL_GROUPS else 1


def failures_tolerated(shape: geometry.StripeGeometry) -> int:
    """Shards of an LRC stripe of which *any* choice may be lost.

    Less than m as soon as there are two local groups, whatever the code: each local parity but one
    is worth nothing to the other group.
    """
    return shape.parity_shards - local_count(shape) + 1
