"""From ErasureCodingPolicy resources to policies that assignment can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from couchestor_domain import errors, geometry
from couchestor_operator.control import ec_policy
from couchestor_operator.resources import erasure_coding_policy


def policy_of(document: Mapping[str, Any]) -> ec_policy.EcPolicy:
    """The policy that a document describes, checked again: it may be older than its schema.

    Raises:
        InvalidEcConfigurationError: it does not fit its schema, or asks for the impossible.
    """
    name = document["metadata"].get("name", "")
    spec_only = {part: value for part, value in document.items() if part != "status"}
    try:
        spec = msgspec.convert(spec_only, erasure_coding_policy.ErasureCodingPolicy).spec
        coding = geometry.StripeGeometry(spec.data_shards, spec.parity_shards)
    except (msgspec.ValidationError, errors.InvalidEcConfigurationError) as exc:
        raise errors.InvalidEcConfigurationError(
            f"ErasureCodingPolicy {name} cannot be used: {exc}"
        ) from exc
    return ec_policy.EcPolicy(name=name, coding=coding, stripe_bytes=spec.stripe_size_bytes)
