"""An ErasureCodingPolicy as assignment uses it."""

from __future__ import annotations

from dataclasses import dataclass

from couchestor_domain import geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class EcPolicy:
    """How what is made under a policy is coded."""

    name: str
    coding: geometry.StripeGeometry
    stripe_bytes: int
