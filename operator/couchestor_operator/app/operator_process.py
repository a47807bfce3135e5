"""The operator: where its parts are made, started together, and stopped in order.

Stopped in this order: the work, which may be anywhere and loses nothing; the Lease, given back so
that another operator need not wait for its end; what was still to be told; connections and pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import uvloop

from couchestor_domain import errors
from couchestor_operator.adapters import (
    heat_cache,
    kube_access,
    kube_api,
    kube_claims,
    kube_config,
    kube_copy,
    kube_ec_policies,
    kube_events,
    kube_leases,
    kube_nodes,
    kube_policies,
    kube_pools,
    kube_stripes,
    kube_volumes,
    mayastor_access,
    mayastor_api,
    mayastor_volumes,
    node_access,
    node_api,
    prometheus,
    prometheus_access,
    prometheus_query,
    system_clock,
)
from couchestor_operator.app import figures, pages, settings
from couchestor_operator.control import election, heat, storage_node
from couchestor_operator.ports import (
    metrics_provider,
    node_client,
    policy_store,
    volume_manager,
)
from couchestor_operator.services import (
    beating_leases,
    heartbeats,
    leadership,
    leading_assignment,
    leading_ports,
    limited_policies,
    migrator,
    pass_reporting,
    stripe_assigner,
    stripe_loop,
    tiering_loop,
    tiering_pass,
    timed_heat,
    told_policies,
)

_LOG = logging.getLogger(__name__)

ELECTION_SECONDS_MAX: Final = 30.0
"""Between two attempts at the Lease: many times what one may take."""
DRAIN_SECONDS_MAX: Final = 5.0
"""For Events that are still to be written when the operator stops."""


def run_to_the_end(told: settings.Settings) -> None:
    """``run`` on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(told))


async def run(told: settings.Settings) -> None:
    """Until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: a setting cannot be used.
        CouchestorError: nothing that waiting would mend.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stopping, number)
    async with contextlib.AsyncExitStack() as stack:
        operator = await _built(told, stack)
        _LOG.info(
            "operator %s: metrics at %s:%d, health at %s:%d",
            operator.identity,
            *operator.metrics_at,
            *operator.health_at,
        )
        await operator.run(stopping)


class Operator:
    """All parts, made and not started. Use ``run``."""

    def __init__(
        self,
        *,
        identity: str,
        clock: system_clock.SystemClock,
        leader: leadership.Leadership,
        policies: policy_store.PolicyStore,
        manager: volume_manager.VolumeManager,
        metrics: metrics_provider.MetricsProvider,
        published: kube_events.KubeEvents,
        copies: Mapping[str, kube_copy.KubeCopy],
        beats: heartbeats.Heartbeats,
        seen: figures.OperatorFigures,
        told: settings.Settings,
        new_assigner: Callable[[], stripe_assigner.StripeAssigner] | None,
    ) -> None:
        self.identity = identity
        self.metrics_at = self.health_at = pages.Address("", 0)
        self._clock = clock
        self._leader = leader
        self._policies = policies
        self._manager = manager
        self._metrics = metrics
        self._published = published
        self._copies = copies
        self._beats = beats
        self._seen = seen
        self._told = told
        self._new_assigner = new_assigner
        """None: stripe groups are not assigned."""
        self._is_stopping = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._kept(f"watch of {name}", copy))
                for name, copy in self._copies.items()
            ]
            writer = group.create_task(self._written())
            leading = group.create_task(self._leader.run(self._work))
            stop = group.create_task(stopping.wait())
            # Whatever else ends raises, and ends the group with it.
            await asyncio.wait([stop, leading], return_when=asyncio.FIRST_COMPLETED)
            self._is_stopping = True
            # The work first, then the Lease: both are over when this is.
            leading.cancel()
            await asyncio.wait([leading])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS_MAX):
                    await self._published.drain()
            for task in (*keepers, writer, stop):
                task.cancel()
        _LOG.info("stopped")

    def health(self) -> pages.Page:
        """Whether every loop comes round."""
        silences = self._beats.silences()
        stuck = {each.loop: round(each.silent_seconds, 1) for each in silences}
        return _page(503 if stuck else 200, {"stuck_loops_silent_seconds": stuck})

    def readiness(self) -> pages.Page:
        """Whether the cluster is known, so that this operator could lead."""
        missing: dict[str, str] = {}
        for name, copy in self._copies.items():
            try:
                copy.at_hand()
            except errors.KubernetesApiError as exc:
                missing[name] = exc.message
        ready = not missing and not self._is_stopping
        return _page(
            200 if ready else 503,
            {
                "leading": self._leader.is_held(),
                "stopping": self._is_stopping,
                "missing": missing,
            },
        )

    async def _work(self) -> None:
        """While the Lease is held; begun anew with the next one."""
        # Right after a start nothing is at hand yet: a pass would only complain.
        await self._copied()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tier())
            if self._new_assigner is not None:
                group.create_task(self._assign(self._new_assigner()))

    async def _tier(self) -> None:
        limit = self._told.pass_timeout_seconds
        interval = max(self._told.pass_interval_seconds, self._told.sync_poll_interval_seconds)
        with self._beats.expected("tiering", within_seconds=limit + interval + 10.0) as beat:
            mover = migrator.Migrator(
                manager=self._manager,
                policies=self._policies,
                time=self._clock,
                publisher=self._published,
                new_id=lambda: uuid.uuid4().hex,
                preservation_mode=self._told.preservation_mode,
            )
            passes = tiering_pass.TieringPass(
                manager=self._manager,
                policies=self._policies,
                metrics=self._metrics,
                time=self._clock,
                mover=mover,
                migrations_count_max=self._told.max_concurrent_migrations,
                preservation_mode=self._told.preservation_mode,
            )
            await tiering_loop.TieringLoop(
                passes=passes,
                mover=mover,
                audience=pass_reporting.PassReporting(self._seen),
                clock=self._clock,
                beat=beat,
                pass_seconds=self._told.pass_interval_seconds,
                poll_seconds=self._told.sync_poll_interval_seconds,
                turn_seconds_max=limit,
            ).run()

    async def _assign(self, assigner: stripe_assigner.StripeAssigner) -> None:
        limit, interval = self._told.pass_timeout_seconds, self._told.stripe_interval_seconds
        with self._beats.expected("assignment", within_seconds=limit + interval + 10.0) as beat:
            await stripe_loop.StripeLoop(
                passes=assigner,
                audience=self._seen,
                clock=self._clock,
                beat=beat,
                pass_seconds=interval,
                pass_seconds_max=limit,
            ).run()

    async def _copied(self) -> None:
        for copy in self._copies.values():
            await copy.heard()

    async def _kept(self, loop: str, copy: kube_copy.KubeCopy) -> None:
        with self._beats.expected(loop, within_seconds=kube_copy.TURN_SECONDS_MAX) as beat:
            await copy.run(beat)

    async def _written(self) -> None:
        with self._beats.expected("events", within_seconds=kube_events.TURN_SECONDS_MAX) as beat:
            await self._published.run(beat)


async def _built(told: settings.Settings, stack: contextlib.AsyncExitStack) -> Operator:
    clock, since_boot = system_clock.SystemClock(), system_clock.BootClock()
    beats, seen = heartbeats.Heartbeats(clock), figures.OperatorFigures()
    access = _kube_access(told)
    api = await stack.enter_async_context(kube_api.opened(access, clock))
    source = await stack.enter_async_context(
        prometheus.opened(_prometheus_access(told), _query(told), trust=heat.Trust(), clock=clock)
    )
    copy = functools.partial(kube_copy.KubeCopy, api, clock=clock)
    copies = {"policies": copy(kube_policies.KIND), "claims": copy(kube_claims.KIND)}
    manager = await _manager(told, stack, api, copies, copy)
    client = None
    if told.node_selector is not None:
        copies |= {"stripes": copy(kube_stripes.KIND), "nodes": copy(kube_nodes.KIND)}
        client = await stack.enter_async_context(node_api.opened(_node_access(told)))
    # Unlike that of any other process: a pod keeps its name when its container starts anew.
    identity = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    terms = election.Terms()
    leases = kube_leases.KubeLeases(
        api,
        name=told.lease_name,
        namespace=told.lease_namespace or "default",
        lease_seconds=terms.lease_seconds,
    )
    beat = stack.enter_context(beats.expected("election", within_seconds=ELECTION_SECONDS_MAX))
    leader = leadership.Leadership(
        identity=identity,
        terms=terms,
        leases=beating_leases.BeatingLeases(leases, beat),
        since_boot=since_boot,
        time=clock,
    )
    timeout_minutes = told.migration_timeout_minutes
    policies = limited_policies.LimitedPolicies(
        told_policies.ToldPolicies(kube_policies.KubePolicies(api, copies["policies"]), seen),
        dry_run=told.dry_run,
        timeout_seconds_max=None if timeout_minutes is None else timeout_minutes * 60.0,
    )
    published = kube_events.KubeEvents(api, clock, instance=identity)
    operator = Operator(
        identity=identity,
        clock=clock,
        leader=leader,
        policies=leading_ports.LeadingPolicies(policies, leader.is_held),
        manager=leading_ports.LeadingVolumes(manager, leader.is_held),
        metrics=heat_cache.HeatCache(timed_heat.TimedHeat(source, clock, seen), clock),
        published=published,
        copies=copies,
        beats=beats,
        seen=seen,
        told=told,
        new_assigner=None
        if client is None
        else functools.partial(_assigner, told, api, copies, client, leader, clock),
    )
    seen.watch(leading=leader.is_held, dropped=lambda: published.dropped_count)
    operator.metrics_at = await stack.enter_async_context(
        pages.served(
            told.metrics_addr,
            {"/metrics": lambda: pages.Page(200, figures.CONTENT_TYPE, seen.page())},
            option="--metrics-addr",
            in_thread=True,
        )
    )
    operator.health_at = await stack.enter_async_context(
        pages.served(
            told.health_addr,
            {"/healthz": operator.health, "/readyz": operator.readiness},
            option="--health-addr",
        )
    )
    return operator


async def _manager(
    told: settings.Settings,
    stack: contextlib.AsyncExitStack,
    api: kube_api.KubeApi,
    copies: dict[str, kube_copy.KubeCopy],
    copy: Callable[[kube_api.Kind], kube_copy.KubeCopy],
) -> volume_manager.VolumeManager:
    claims = kube_claims.KubeClaims(api, copies["claims"])
    if told.volume_manager == settings.REST:
        assert told.mayastor_url is not None
        access = mayastor_access.Access(
            url=told.mayastor_url,
            bearer_token_file=told.mayastor_token_file,
            ca_file=told.mayastor_ca_file,
        )
        rest = await stack.enter_async_context(mayastor_api.opened(access))
        return mayastor_volumes.MayastorVolumes(rest, claims, system_clock.SystemClock())
    copies["volumes"] = copy(kube_volumes.kind_of(told.mayastor_namespace))
    return kube_volumes.KubeVolumes(
        api,
        namespace=told.mayastor_namespace,
        watched=copies["volumes"],
        claims=claims,
        pools=kube_pools.KubePools(
            api, namespace=told.mayastor_namespace, version=told.disk_pool_version
        ),
    )


def _assigner(
    told: settings.Settings,
    api: kube_api.KubeApi,
    copies: Mapping[str, kube_copy.KubeCopy],
    client: node_client.NodeClient,
    leader: leadership.Leadership,
    clock: system_clock.SystemClock,
) -> stripe_assigner.StripeAssigner:
    """One that has seen nothing yet: a grace begins anew with each time that this leads."""
    assert told.node_selector is not None
    assert told.stripe_policy is not None
    stripes = kube_stripes.KubeStripes(api, copies["stripes"], clock)
    return stripe_assigner.StripeAssigner(
        terms=stripe_assigner.Terms(
            policy=told.stripe_policy,
            stock_count=told.stripe_stock,
            grace_seconds=told.node_grace_seconds,
        ),
        directory=kube_nodes.KubeNodes(copies["nodes"], wanted=told.node_selector),
        endpoint_of=functools.partial(_endpoint, told),
        client=leading_assignment.LeadingNodes(client, leader.is_held),
        stripes=leading_assignment.LeadingStripes(stripes, leader.is_held),
        policies=kube_ec_policies.KubeEcPolicies(api),
        clock=clock,
    )


def _endpoint(told: settings.Settings, node: storage_node.StorageNode) -> node_client.Endpoint:
    host = f"[{node.address}]" if ":" in node.address else node.address
    scheme = "https" if told.node_tls else "http"
    return node_client.Endpoint(node=node.name, url=f"{scheme}://{host}:{told.node_port}")


def _node_access(told: settings.Settings) -> node_access.Access:
    return node_access.Access(
        url=f"{'https' if told.node_tls else 'http'}://nodes:{told.node_port}",
        bearer_token_file=told.node_token_file,
        ca_file=told.node_ca_file,
    )


def _kube_access(told: settings.Settings) -> kube_access.Access | kube_config.Access:
    if told.kubeconfig is not None:
        return kube_config.Access(path=told.kubeconfig, context=told.kube_context)
    try:
        return kube_access.in_cluster(os.environ)
    except errors.ConfigurationError as exc:
        raise errors.ConfigurationError(
            "nothing says where the Kubernetes API is: run this in a pod with a service account, or"
            " give --kubeconfig"
        ) from exc


def _prometheus_access(told: settings.Settings) -> prometheus_access.Access:
    return prometheus_access.Access(
        url=told.prometheus_url,
        bearer_token_file=told.prometheus_token_file,
        ca_file=told.prometheus_ca_file,
    )


def _query(told: settings.Settings) -> prometheus_query.QueryTemplate:
    if told.metrics_query is None:
        return prometheus_query.PRESETS[told.prometheus_preset]
    return prometheus_query.QueryTemplate(
        expression=told.metrics_query, volume_label=told.metrics_volume_label
    )


def _stop(stopping: asyncio.Event, number: signal.Signals) -> None:
    _LOG.info("%s: stopping", number.name)
    stopping.set()


def _page(status: int, document: Mapping[str, object]) -> pages.Page:
    return pages.Page(status, "application/json", json.dumps(document).encode() + b"\n")
