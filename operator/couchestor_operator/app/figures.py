"""What the operator counts and measures, as Prometheus metrics of a registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import prometheus_client
from prometheus_client import registry

from couchestor_operator.control import migration, stripe_group
from couchestor_operator.services import stripe_assigner, tiering_pass

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST
_CALL_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PASS_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_MIGRATION_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 1800, 3600, 4 * 3600, 24 * 3600)


class OperatorFigures:
    """Implements ``MigrationFigures``, ``QueryFigures`` and the ``Audience`` of both loops."""

    def __init__(self) -> None:
        self._registry = target = registry.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=target)
        counter, gauge = prometheus_client.Counter, prometheus_client.Gauge
        histogram = prometheus_client.Histogram
        self._decisions = counter(
            "couchestor_operator_decisions",
            "Volumes by what a pass decided about them, summed over passes",
            ["policy", "decision"],
            registry=target,
        )
        self._passes = counter(
            "couchestor_operator_passes",
            "Passes over all policies: complete, without a part of what it needs, or not made",
            ["outcome"],
            registry=target,
        )
        self._pass_seconds = histogram(
            "couchestor_operator_pass_seconds",
            "Time of a pass",
            buckets=_PASS_BUCKETS,
            registry=target,
        )
        self._last_pass = gauge(
            "couchestor_operator_last_pass_timestamp_seconds",
            "When the last pass was complete",
            registry=target,
        )
        self._volumes = gauge(
            "couchestor_operator_volumes",
            "Volumes at the last pass: watched, of unknown heat, with a surplus replica",
            ["kind"],
            registry=target,
        )
        self._under_way = gauge(
            "couchestor_operator_migrations_under_way",
            "Migrations under way after the last pass",
            registry=target,
        )
        self._begun = counter(
            "couchestor_operator_migrations_begun",
            "Migrations written down",
            ["policy"],
            registry=target,
        )
        self._ended = counter(
            "couchestor_operator_migrations_ended",
            "Migrations that ended",
            ["policy", "outcome"],
            registry=target,
        )
        self._migration_seconds = histogram(
            "couchestor_operator_migration_seconds",
            "Time of a migration, from its beginning to its end",
            ["outcome"],
            buckets=_MIGRATION_BUCKETS,
            registry=target,
        )
        self._step_seconds = histogram(
            "couchestor_operator_migration_step_seconds",
            "Time of one step of a migration, when it was left",
            ["step"],
            buckets=_MIGRATION_BUCKETS,
            registry=target,
        )
        self._queries = counter(
            "couchestor_operator_queries",
            "Queries for the heat of all volumes: ok, or the error",
            ["outcome"],
            registry=target,
        )
        self._query_seconds = histogram(
            "couchestor_operator_query_seconds",
            "Time of a query for heat",
            buckets=_CALL_BUCKETS,
            registry=target,
        )
        self._stripe_passes = counter(
            "couchestor_operator_stripe_passes",
            "Passes over stripe groups: complete, without what some nodes say, or not made",
            ["outcome"],
            registry=target,
        )
        self._stripe_pass_seconds = histogram(
            "couchestor_operator_stripe_pass_seconds",
            "Time of a pass over stripe groups",
            buckets=_PASS_BUCKETS,
            registry=target,
        )
        self._stripe_groups = gauge(
            "couchestor_operator_stripe_groups",
            "Stripe groups by state, at the last pass",
            ["state"],
            registry=target,
        )
        self._stripes_held = gauge(
            "couchestor_operator_stripe_groups_held",
            "At the last pass: stock (ahead of need), waiting (left to the next pass), unplaced"
            " (no device can take their lost shards), orphans (shards without an ECStripe)",
            ["kind"],
            registry=target,
        )
        self._stripe_changes = counter(
            "couchestor_operator_stripe_changes",
            "What passes did: made, moved, told, handed, released, refused",
            ["what"],
            registry=target,
        )
        self._nodes = gauge(
            "couchestor_operator_nodes",
            "Storage nodes at the last pass: known, lost, silent",
            ["kind"],
            registry=target,
        )
        self._leading = gauge(
            "couchestor_operator_leading", "Whether this operator acts", registry=target
        )
        self._dropped = gauge(
            "couchestor_operator_events_dropped",
            "Kubernetes Events that could not be written",
            registry=target,
        )
        # Known before they first happen, so that a rate over them has a beginning.
        for step in migration.Step:
            self._step_seconds.labels(step.value)
        for outcome in migration.Outcome:
            self._migration_seconds.labels(outcome.value)

    def page(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return prometheus_client.generate_latest(self._registry)

    def watch(self, *, leading: Callable[[], bool], dropped: Callable[[], int]) -> None:
        """Ask for these whenever the page is made."""
        self._leading.set_function(lambda: float(leading()))
        self._dropped.set_function(lambda: float(dropped()))

    # -- what it hears -----------------------------------------------------------------------------

    def passed(self, summary: tiering_pass.Summary, *, seconds: float) -> None:
        """See ``tiering_loop.Audience``."""
        self._passes.labels("incomplete" if summary.faults else "complete").inc()
        self._pass_seconds.observe(seconds)
        if not summary.faults:
            self._last_pass.set_to_current_time()
        for (policy_name, what), count in summary.decisions.items():
            self._decisions.labels(policy_name, what).inc(count)
        self._volumes.labels("watched").set(summary.watched_count)
        self._volumes.labels("unknown").set(summary.unknown_count)
        self._volumes.labels("surplus").set(summary.surplus_count)
        self._under_way.set(summary.under_way_count + summary.begun_count)

    def missed(self, *, seconds: float) -> None:
        """See ``tiering_loop.Audience``."""
        self._passes.labels("missed").inc()
        self._pass_seconds.observe(seconds)

    def assigned(self, summary: stripe_assigner.Summary, *, seconds: float) -> None:
        """See ``stripe_loop.Audience``."""
        self._stripe_passes.labels("incomplete" if summary.faults else "complete").inc()
        self._stripe_pass_seconds.observe(seconds)
        for state in stripe_group.State:
            self._stripe_groups.labels(state.value).set(summary.states[state])
        for kind, count in (
            ("stock", summary.stock_count),
            ("waiting", summary.waiting_count),
            ("unplaced", summary.unplaced_count),
            ("orphans", summary.orphans_count),
        ):
            self._stripes_held.labels(kind).set(count)
        for what, count in (
            ("made", summary.made_count),
            ("moved", summary.moved_count),
            ("told", summary.told_count),
            ("handed", summary.handed_count),
            ("released", summary.released_count),
            ("refused", summary.refused_count),
        ):
            self._stripe_changes.labels(what).inc(count)
        self._nodes.labels("known").set(summary.nodes_count)
        self._nodes.labels("lost").set(len(summary.lost))
        self._nodes.labels("silent").set(len(summary.faults))

    def not_assigned(self, *, seconds: float) -> None:
        """See ``stripe_loop.Audience``."""
        self._stripe_passes.labels("missed").inc()
        self._stripe_pass_seconds.observe(seconds)

    def begun(self, policy_name: str) -> None:
        """See ``MigrationFigures``."""
        self._begun.labels(policy_name).inc()

    def stepped(self, step: migration.Step, *, seconds: float) -> None:
        """See ``MigrationFigures``."""
        self._step_seconds.labels(step.value).observe(seconds)

    def ended(self, policy_name: str, outcome: migration.Outcome, *, seconds: float) -> None:
        """See ``MigrationFigures``."""
        self._ended.labels(policy_name, outcome.value).inc()
        self._migration_seconds.labels(outcome.value).observe(seconds)

    def queried(self, outcome: str, *, seconds: float) -> None:
        """See ``QueryFigures``."""
        self._queries.labels(outcome).inc()
        self._query_seconds.observe(seconds)
