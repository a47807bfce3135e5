"""What people are told of a policy, written into its status."""

from __future__ import annotations

import datetime

import msgspec

from couchestor_domain import tiers
from couchestor_operator.control import standing
from couchestor_operator.resources import field_types, storage_policy

MESSAGE_LENGTH_MAX = 32_768


def reported(
    status: storage_policy.StoragePolicyStatus, told: standing.Standing, *, generation: int | None
) -> storage_policy.StoragePolicyStatus:
    """The status with what a pass saw; migrations, history and their counts stay as they are.

    Args:
        generation: Of the policy that the pass has read.
    """
    moment = datetime.datetime.fromtimestamp(told.reconciled_seconds, tz=datetime.UTC)
    before = {condition.type: condition for condition in status.conditions}
    return msgspec.structs.replace(
        status,
        phase=storage_policy.PolicyPhase(told.phase.value),
        observed_generation=generation,
        watched_volumes=told.watched_count,
        hot_volumes=told.in_tier.get(tiers.Tier.HOT, 0),
        warm_volumes=told.in_tier.get(tiers.Tier.WARM, 0),
        cold_volumes=told.in_tier.get(tiers.Tier.COLD, 0),
        active_migrations=len(status.migrations),
        last_reconcile_time=moment,
        conditions=[
            _condition(
                condition, before.get(condition.aspect.value), moment=moment, generation=generation
            )
            for condition in told.conditions
        ],
    )


def _condition(
    told: standing.Condition,
    before: field_types.Condition | None,
    *,
    moment: datetime.datetime,
    generation: int | None,
) -> field_types.Condition:
    status = field_types.ConditionStatus.TRUE if told.holds else field_types.ConditionStatus.FALSE
    unchanged = before is not None and before.status is status
    return field_types.Condition(
        type=told.aspect.value,
        status=status,
        reason=told.reason,
        message=told.message[:MESSAGE_LENGTH_MAX],
        last_transition_time=before.last_transition_time
        if before is not None and unchanged
        else moment,
        observed_generation=generation,
    )
