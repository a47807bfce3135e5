"""One pass over all stripe groups: look, tell how they are, move, make, hand over.

Nothing is remembered between two passes that safety would need: whoever makes the next one, after a
kill or beside this one, reads the same ECStripes and asks the same nodes. What is remembered (which
node failed a moment ago, since when one is missing, which zones were refused) only makes a pass do
less.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from couchestor_domain import errors, ids
from couchestor_domain.node_api import contract
from couchestor_operator.control import (
    node_watch,
    storage_node,
    stripe_group,
    stripe_judgement,
    stripe_ledger,
    stripe_plan,
)
from couchestor_operator.ports import (
    ec_policies,
    monotonic_clock,
    node_client,
    node_directory,
    stripe_store,
)
from couchestor_operator.services import node_accounts

_LOG = logging.getLogger(__name__)

REFUSED_COUNT_MAX: Final = 10_000
FULL_SECONDS: Final = 600.0
"""For which nothing is placed on a device whose node had no room on it."""
_TURN_GROUPS_COUNT: Final = 200
"""Groups judged before others have a turn on the event loop: a few ms."""
K = TypeVar("K")
_ROOM: Final = (contract.Refusal.ZONE_TAKEN, contract.Refusal.NO_ROOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an assigner was told."""

    policy: str
    """Name of the ErasureCodingPolicy that groups are made under."""
    stock_count: int
    """Groups that each writer has ahead of need."""
    grace_seconds: float
    """Before a node is lost."""
    writes_count_max: int = 100
    """ECStripes written in one pass, each with its status counted by itself."""
    made_count_max: int = 32
    """Groups made in one pass."""
    sent_count_max: int = 400
    """Assignments sent in one pass."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a pass found and did, for logs and metrics."""

    states: collections.Counter[stripe_group.State] = field(default_factory=collections.Counter)
    stock_count: int = 0
    told_count: int = 0
    moved_count: int = 0
    made_count: int = 0
    handed_count: int = 0
    released_count: int = 0
    refused_count: int = 0
    """Writes and requests that were refused, for they were decided on what is no more."""
    waiting_count: int = 0
    """Groups that are left to the next pass."""
    unplaced_count: int = 0
    """Groups whose lost shards no device can take."""
    orphans_count: int = 0
    """Shards on nodes whose groups have no ECStripe."""
    nodes_count: int = 0
    lost: frozenset[str] = frozenset()
    faults: Mapping[str, str] = field(default_factory=dict)
    """By node, why it said nothing that can be used."""
    problems: list[str] = field(default_factory=list)
    """For people: what does not go on by itself."""


class StripeAssigner:
    """Makes passes. Every write and every request goes through ports that ask for the Lease."""

    def __init__(
        self,
        *,
        terms: Terms,
        directory: node_directory.NodeDirectory,
        endpoint_of: Callable[[storage_node.StorageNode], node_client.Endpoint],
        client: node_client.NodeClient,
        stripes: stripe_store.StripeStore,
        policies: ec_policies.EcPolicies,
        clock: monotonic_clock.MonotonicClock,
    ) -> None:
        self._terms = terms
        self._directory = directory
        self._endpoint_of = endpoint_of
        self._client = client
        self._stripes = stripes
        self._policies = policies
        self._clock = clock
        self._accounts = node_accounts.NodeAccounts(client, clock)
        self._watch = node_watch.NodeWatch(grace_seconds=terms.grace_seconds)
        self._refused_zones: dict[stripe_ledger.Zone, None] = {}
        self._full_until_seconds: dict[ids.DeviceId, float] = {}
        self._refused_handings: dict[tuple[str, str, int], None] = {}
        """Node, group, generation."""

    async def run(self) -> Summary:
        """Make one pass. Whatever it could not do is tried again by the next one.

        Raises:
            TransientError: nodes or groups are not known, or the Lease was lost.
        """
        summary = Summary()
        scene = await self._look(summary)
        told = await self._judge(scene)
        for name, each in told.items():
            summary.states[each.state] += 1
            is_open = stripe_judgement.is_open(scene.groups[name], scene.seen)
            summary.stock_count += stripe_plan.is_stock(each, is_open=is_open)
        summary.orphans_count = stripe_plan.orphans_count(scene)
        pass_ = _Pass(self._terms, scene, told, stripe_ledger.Ledger(scene), summary)
        try:
            await self._mend(pass_)
            await self._make(pass_)
        except errors.LeaseLostError:
            raise
        except errors.TransientError as exc:
            _LOG.warning("stripe groups wait for the next pass: %s", exc)
            summary.problems.append(exc.message)
        await self._hand(pass_)
        return summary

    # -- looking --------------------------------------------------------------------------------

    async def _look(self, summary: Summary) -> stripe_ledger.Scene:
        nodes = await self._directory.nodes()
        groups = {group.name: group for group in await self._stripes.every()}
        names = {name for name, node in nodes.items() if node.selected}
        for group in groups.values():
            names.update(place.node for place in group.places)
        # A writer's node that holds nothing is asked what it has, and nothing hangs on its loss.
        writers = {group.writer_node for group in groups.values()}
        endpoints = [
            self._endpoint_of(nodes[name])
            for name in sorted(names | writers)
            if name in nodes and nodes[name].address
        ]
        looked = await self._accounts.look(endpoints)
        lost = self._watch.lost(
            names,
            known=nodes,
            contacts=looked.contacts,
            now_seconds=self._clock.monotonic_seconds(),
        )
        if node_watch.is_too_many(lost, names):
            summary.problems.append(
                f"{len(lost)} of {len(names)} nodes seem to be lost: none is taken for lost while"
                " it is more than half of them; look at the operator's own network"
            )
            lost = frozenset()
        summary.nodes_count = len(names)
        summary.lost = lost
        summary.faults = looked.faults
        seen = stripe_judgement.Witnesses(accounts=looked.accounts, lost=lost)
        return stripe_ledger.Scene(
            nodes=nodes,
            seen=seen,
            groups=groups,
            refused=self._refused_zones.keys(),
            full=self._full(),
        )

    def _full(self) -> frozenset[ids.DeviceId]:
        now_seconds = self._clock.monotonic_seconds()
        for device_id in [
            each for each, until in self._full_until_seconds.items() if until <= now_seconds
        ]:
            del self._full_until_seconds[device_id]
        return frozenset(self._full_until_seconds)

    async def _judge(self, scene: stripe_ledger.Scene) -> dict[str, stripe_group.Told]:
        told = {}
        for index, group in enumerate(scene.groups.values()):
            if index % _TURN_GROUPS_COUNT == _TURN_GROUPS_COUNT - 1:
                await asyncio.sleep(0)
            told[group.name] = stripe_judgement.judge(group, scene.seen)
        return told

    # -- ECStripes ------------------------------------------------------------------------------

    async def _mend(self, pass_: _Pass) -> None:
        """Tell what has changed, and move shards that cannot be where they are."""
        living = [group for group in pass_.scene.groups.values() if not group.is_being_deleted]
        for index, group in enumerate(stripe_plan.by_urgency(living, pass_.told)):
            if index % _TURN_GROUPS_COUNT == _TURN_GROUPS_COUNT - 1:
                await asyncio.sleep(0)
            told = pass_.told[group.name]
            lost = stripe_plan.misplaced(group, pass_.ledger)
            if told == group.told and not lost:
                continue
            if pass_.writes_left_count <= 0:
                pass_.summary.waiting_count += 1
                continue
            try:
                await self._mend_one(pass_, group, told, lost)
            except errors.VersionConflictError as exc:
                pass_.conflicting.add(group.name)
                pass_.summary.refused_count += 1
                _LOG.info("stripe group %s waits: %s", group.name, exc)

    async def _mend_one(
        self,
        pass_: _Pass,
        group: stripe_group.StripeGroup,
        told: stripe_group.Told,
        lost: Sequence[int],
    ) -> None:
        if told != group.told:
            before = None if group.told is None else group.told.state
            group = await self._stripes.tell(group, told)
            pass_.wrote(group)
            pass_.summary.told_count += 1
            if before is not told.state:
                bad = told.state in (stripe_group.State.DEGRADED, stripe_group.State.FAILED)
                _LOG.log(
                    logging.WARNING if bad else logging.INFO,
                    "stripe group %s is %s: %d of %d shards are healthy%s",
                    group.name,
                    told.state.value,
                    told.healthy_count,
                    len(group.places),
                    "".join(f"; {why}" for why in told.errors if why),
                )
        if not lost or told.state is stripe_group.State.FAILED:
            return
        why = stripe_plan.why_not_moved(group, lost)
        if why is not None:
            pass_.summary.waiting_count += 1
            pass_.complain(f"lost shards of stripe group {group.name} wait: {why}")
            return
        placed = stripe_plan.replaced(group, lost, pass_.ledger)
        if isinstance(placed, stripe_plan.NoPlace):
            pass_.summary.unplaced_count += 1
            pass_.complain(f"lost shards of stripe group {group.name}: {placed.why}")
            return
        moved = await self._stripes.move(placed.group)
        pass_.wrote(moved)
        pass_.summary.moved_count += 1
        _LOG.info(
            "stripe group %s: shards %s get new places at generation %d; it is to survive %s",
            group.name,
            ", ".join(map(str, lost)),
            moved.generation,
            placed.protection.survives.name.lower(),
        )

    async def _make(self, pass_: _Pass) -> None:
        """Make the groups that writers lack."""
        wants = list(
            stripe_plan.wants(pass_.scene, pass_.told, stock_count=self._terms.stock_count)
        )
        if not wants:
            return
        try:
            policy = await self._policies.read(self._terms.policy)
        except errors.ErasureCodingError as exc:
            pass_.complain(f"no stripe groups are made: {exc.message}")
            return
        left_count = self._terms.made_count_max
        for want in wants:
            if want.unseen and await self._stripes.is_there(want.unseen):
                # What is at hand does not show the last groups yet.
                pass_.summary.waiting_count += 1
                continue
            for number in range(want.lacking_count):
                if left_count <= 0:
                    return
                placed = stripe_plan.next_group(
                    want,
                    number=number,
                    policy=policy.name,
                    coding=policy.coding,
                    ledger=pass_.ledger,
                )
                if isinstance(placed, stripe_plan.NoPlace):
                    pass_.complain(f"a stripe group for writer {want.writer}: {placed.why}")
                    return
                try:
                    made = await self._stripes.make(placed.group)
                except errors.VersionConflictError as exc:
                    # Somebody else made it, or what is at hand does not show it yet.
                    pass_.summary.refused_count += 1
                    _LOG.info("writer %s waits for its groups: %s", want.writer, exc)
                    break
                left_count -= 1
                pass_.wrote(made)
                pass_.summary.made_count += 1
                _LOG.debug("stripe group %s was made", made.name)

    # -- nodes ----------------------------------------------------------------------------------

    async def _hand(self, pass_: _Pass) -> None:
        """Send nodes what they do not go by yet, and let them go of what lies elsewhere."""
        by_node: dict[str, list[stripe_plan.Handing | stripe_plan.Release]] = {}
        left_count = self._terms.sent_count_max
        async for each in self._due(pass_):
            known = (each.node, each.assignment.stripe, each.assignment.generation)
            if known in self._refused_handings:
                continue
            if left_count <= 0:
                pass_.summary.waiting_count += 1
                continue
            left_count -= 1
            by_node.setdefault(each.node, []).append(each)
        turns = asyncio.Semaphore(node_accounts.ASKED_AT_ONCE_COUNT)

        async def send(node: str, due: Iterable[stripe_plan.Handing | stripe_plan.Release]) -> None:
            endpoint = self._endpoint_of(pass_.scene.nodes[node])
            async with turns:
                for each in due:
                    if not await self._sent(pass_, endpoint, each):
                        return

        async with asyncio.TaskGroup() as group:
            for node, due in by_node.items():
                group.create_task(send(node, due))

    async def _due(self, pass_: _Pass) -> AsyncIterator[stripe_plan.Handing | stripe_plan.Release]:
        for index, name in enumerate(sorted(pass_.scene.groups)):
            if index % _TURN_GROUPS_COUNT == _TURN_GROUPS_COUNT - 1:
                await asyncio.sleep(0)
            group = pass_.scene.groups[name]
            if not group.is_being_deleted and name not in pass_.conflicting:
                for handing in stripe_plan.handings(group, pass_.scene):
                    yield handing
        for node in sorted(pass_.scene.seen.accounts):
            await asyncio.sleep(0)
            for release in stripe_plan.releases(node, pass_.scene):
                yield release

    async def _sent(
        self,
        pass_: _Pass,
        endpoint: node_client.Endpoint,
        due: stripe_plan.Handing | stripe_plan.Release,
    ) -> bool:
        """Returns: whether the node can be sent more."""
        wanted = due.assignment
        try:
            await self._client.assign(endpoint, wanted)
            if isinstance(due, stripe_plan.Release):
                await self._client.release(endpoint, wanted.stripe, generation=wanted.generation)
                pass_.summary.released_count += 1
            else:
                pass_.summary.handed_count += 1
        except (errors.AssignmentRefusedError, errors.VersionConflictError) as exc:
            pass_.summary.refused_count += 1
            pass_.complain(exc.message)
            self._refused(endpoint.node, due, exc.context.get("refusal"))
        except errors.LeaseLostError:
            return False
        except errors.TransientError as exc:
            self._accounts.failed(endpoint.node, exc.message)
            _LOG.warning("node %s is left alone for a while: %s", endpoint.node, exc)
            return False
        return True

    def _refused(
        self,
        node: str,
        due: stripe_plan.Handing | stripe_plan.Release,
        refusal: object,
    ) -> None:
        wanted = due.assignment
        if refusal in _ROOM:
            for place in wanted.shards:
                if place.node == node:
                    zone = stripe_ledger.Zone(place.device_id, place.offset_bytes)
                    _remember(self._refused_zones, zone)
                    if refusal is contract.Refusal.NO_ROOM:
                        until_seconds = self._clock.monotonic_seconds() + FULL_SECONDS
                        self._full_until_seconds[place.device_id] = until_seconds
        else:
            _remember(self._refused_handings, (node, wanted.stripe, wanted.generation))


@dataclass(slots=True)
class _Pass:
    """What one pass works on."""

    terms: Terms
    scene: stripe_ledger.Scene
    told: Mapping[str, stripe_group.Told]
    ledger: stripe_ledger.Ledger
    summary: Summary
    conflicting: set[str] = field(default_factory=set)
    """Groups that somebody else has changed: what is at hand is not to be sent."""
    writes_left_count: int = 0

    def __post_init__(self) -> None:
        self.writes_left_count = self.terms.writes_count_max

    def wrote(self, group: stripe_group.StripeGroup) -> None:
        """An ECStripe was written, and is so now."""
        self.writes_left_count -= 1
        self.scene.groups[group.name] = group

    def complain(self, problem: str) -> None:
        """Tell people, within bounds."""
        if len(self.summary.problems) < 16 and problem not in self.summary.problems:
            self.summary.problems.append(problem)


def _remember(known: dict[K, None], key: K) -> None:
    known[key] = None
    if len(known) > REFUSED_COUNT_MAX:
        del known[next(iter(known))]
