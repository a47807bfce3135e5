"""From StoragePolicy resources to policies that decisions can use."""

from __future__ import annotations

import msgspec

from couchestor_domain import errors, tiers
from couchestor_operator.control import duration, policy, selector
from couchestor_operator.resources import field_types, storage_policy


def decode(document: object) -> storage_policy.StoragePolicy:
    """A StoragePolicy from what the API returned; fields of newer versions are passed over.

    Raises:
        InvalidPolicyError: a field is missing, of the wrong type or out of its range.
    """
    try:
        return msgspec.convert(document, storage_policy.StoragePolicy)
    except msgspec.ValidationError as exc:
        raise errors.InvalidPolicyError(
            f"the StoragePolicy does not fit its schema: {exc}"
        ) from exc


def policy_of(resource: storage_policy.StoragePolicy) -> policy.Policy:
    """What a StoragePolicy asks for, checked again: it may be older than the rules of its schema.

    Raises:
        InvalidPolicyError: it asks for the impossible; the message names the field.
    """
    spec = resource.spec
    hot_selector = _one_of(
        spec.hot_pool_selector, spec.nvme_pool_selector, names="hotPoolSelector, nvmePoolSelector"
    )
    cold_selector = _one_of(
        spec.cold_pool_selector, spec.sata_pool_selector, names="coldPoolSelector, sataPoolSelector"
    )
    pools = {
        tiers.Tier.HOT: _selector("hotPoolSelector", hot_selector),
        tiers.Tier.WARM: _selector("warmPoolSelector", spec.warm_pool_selector),
        tiers.Tier.COLD: _selector("coldPoolSelector", cold_selector),
    }
    created_at = resource.metadata.creation_timestamp
    return policy.Policy(
        name=resource.metadata.name,
        created_at_seconds=created_at.timestamp() if created_at is not None else 0.0,
        watermarks=policy.Watermarks(
            low_iops=spec.low_watermark_iops,
            warm_iops=spec.warm_watermark_iops or None,
            high_iops=spec.high_watermark_iops,
        ),
        sampling_window_seconds=_seconds("samplingWindow", spec.sampling_window),
        cooldown_seconds=_seconds("cooldownPeriod", spec.cooldown_period),
        migration_timeout_seconds=_seconds("migrationTimeout", spec.migration_timeout),
        storage_class=spec.storage_class_name,
        pool_selectors={tier: wanted for tier, wanted in pools.items() if wanted is not None},
        volume_selector=_selector("volumeSelector", spec.volume_selector) or selector.Selector(),
        migrations_count_max=spec.max_concurrent_migrations,
        enabled=spec.enabled,
        dry_run=spec.dry_run,
        ec_policy=spec.ec_policy_ref,
        ec_volume_bytes_min=spec.ec_min_volume_size_bytes,
    )


def _one_of(
    first: field_types.LabelSelector | None,
    other: field_types.LabelSelector | None,
    *,
    names: str,
) -> field_types.LabelSelector | None:
    if first is not None and other is not None:
        raise errors.InvalidPolicyError(
            f"{names} are two names of one field: give one of them", field=names
        )
    return first if first is not None else other


def _seconds(field: str, text: str) -> float:
    try:
        return duration.parse_seconds(text)
    except errors.DurationParseError as exc:
        raise errors.InvalidPolicyError(f"{field}: {exc}", field=field) from exc


def _selector(field: str, given: field_types.LabelSelector | None) -> selector.Selector | None:
    if given is None:
        return None
    try:
        return selector.Selector(
            match_labels=given.match_labels,
            requirements=tuple(
                selector.Requirement(
                    key=expression.key,
                    operator=selector.Operator(expression.operator.value),
                    values=frozenset(expression.values),
                )
                for expression in given.match_expressions
            ),
        )
    except errors.InvalidSelectorError as exc:
        raise errors.InvalidPolicyError(f"{field}: {exc}", field=field) from exc
