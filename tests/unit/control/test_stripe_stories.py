"""Two operators at once, over looks that are old and calls that are lost, late or unanswered, while
nodes die, come back, write and rebuild: whatever the story, no data is given up and all ends well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import assignment_stage
import memory_node
import pytest

from couchestor_domain import errors
from couchestor_domain.node_api import assignment, encoding_request, node_record
from couchestor_operator.control import stripe_group, stripe_judgement
from couchestor_operator.ports import node_client
from couchestor_operator.resources import stripe_document
from couchestor_operator.services import stripe_assigner

T = TypeVar("T")

STEPS_COUNT: Final = 20
WITH_DATA: Final = (node_record.ShardState.OPEN, node_record.ShardState.SEALED)
GRACE_SECONDS: Final = 60
PASSES_OF_GRACE: Final = 2


class Line:
    """Every call of the operators goes through here; each may go wrong."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.faults_ratio = 0.15
        self._late: list[Callable[[], Awaitable[object]]] = []

    async def call(
        self, do: Callable[[], Awaitable[T]], gone: Callable[[str], errors.TransientError]
    ) -> T:
        """Make a call, or not, with others in between."""
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(0)
        if self.rng.random() >= self.faults_ratio:
            return await do()
        kind = self.rng.randrange(3)
        if kind == 0:
            await do()
        elif kind == 1:
            self._late.append(do)
        raise gone("no answer came in time")

    async def land(self) -> None:
        """Have what is late be carried out."""
        late, self._late = self._late, []
        self.rng.shuffle(late)
        for do in late:
            try:
                await do()
            except (errors.ControlPlaneError, memory_node.Refused):
                continue


class OldLooks:
    """ECStripes as they were a while ago, and writes over a network."""

    def __init__(self, stage: assignment_stage.Stage, line: Line) -> None:
        self._inner = stage.stripes
        self._line = line
        self._looks: list[list[dict[str, object]]] = []

    async def every(self) -> Sequence[stripe_group.StripeGroup]:
        """Up to three looks old."""
        self._looks.append(list(self._inner.documents.values()))
        self._looks = self._looks[-3:]
        documents = self._line.rng.choice(self._looks)
        found = (stripe_document.group_of(each) for each in documents)
        return [group for group in found if group is not None]

    async def is_there(self, name: str) -> bool:
        """Over the line."""
        return await self._line.call(lambda: self._inner.is_there(name), errors.KubernetesApiError)

    async def make(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """Over the line."""
        return await self._line.call(lambda: self._inner.make(group), errors.KubernetesApiError)

    async def move(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """Over the line."""
        return await self._line.call(lambda: self._inner.move(group), errors.KubernetesApiError)

    async def tell(
        self, group: stripe_group.StripeGroup, told: stripe_group.Told
    ) -> stripe_group.StripeGroup:
        """Over the line."""
        return await self._line.call(
            lambda: self._inner.tell(group, told), errors.KubernetesApiError
        )


class FarNodes:
    """Nodes over a network."""

    def __init__(self, stage: assignment_stage.Stage, line: Line) -> None:
        self._inner = stage.client
        self._line = line

    async def state(self, endpoint: node_client.Endpoint) -> node_record.NodeRecord:
        """Over the line."""
        return await self._line.call(
            lambda: self._inner.state(endpoint), errors.NodeUnreachableError
        )

    async def shards(
        self, endpoint: node_client.Endpoint, *, since: int, begun: int
    ) -> node_record.ShardPage:
        """Over the line."""
        return await self._line.call(
            lambda: self._inner.shards(endpoint, since=since, begun=begun),
            errors.NodeUnreachableError,
        )

    async def assign(self, endpoint: node_client.Endpoint, wanted: assignment.Assignment) -> None:
        """Over the line."""
        await self._line.call(
            lambda: self._inner.assign(endpoint, wanted), errors.NodeUnreachableError
        )

    async def release(
        self, endpoint: node_client.Endpoint, stripe: str, *, generation: int
    ) -> None:
        """Over the line."""
        await self._line.call(
            lambda: self._inner.release(endpoint, stripe, generation=generation),
            errors.NodeUnreachableError,
        )

    async def encode(
        self, endpoint: node_client.Endpoint, request: encoding_request.EncodingRequest
    ) -> encoding_request.EncodingState:
        """Never asked for here."""
        raise AssertionError(request)

    async def encoding(
        self, endpoint: node_client.Endpoint, volume: str
    ) -> encoding_request.EncodingState | None:
        """Never asked for here."""
        raise AssertionError(volume)


class Lost(Exception):
    """Data is gone."""


class World:
    """What happens, and what must not."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stage = assignment_stage.Stage(nodes_count=0)
        for number in range(6):
            self.stage.add_node(f"node-{number}", zone=f"zone-{number % 3}", devices_count=2)
        self.line = Line(self.rng)
        self.written: dict[str, set[int]] = {}
        """By group: indices whose shards hold data somewhere, be the node there or not."""
        self.operators = [self.operator() for _ in range(2)]

    def operator(self) -> stripe_assigner.StripeAssigner:
        """One that has just started."""
        return self.stage.operator(
            stripes=OldLooks(self.stage, self.line),
            client=FarNodes(self.stage, self.line),
            grace_seconds=GRACE_SECONDS,
        )

    def held(self, stripe: str) -> set[int]:
        """Indices of a group that lie somewhere with data."""
        return {
            index
            for node in self.stage.client.nodes.values()
            for (name, index, _, _), shard in node.shards.items()
            if name == stripe and shard.state in WITH_DATA and shard.written_bytes
        }

    def check(self) -> None:
        """No data has gone, and enough of it is where its ECStripe says."""
        for stripe, before in self.written.items():
            there_count = sum(
                key in node.shards and node.shards[key].state in WITH_DATA
                for node, key in self._places(stripe)
            )
            if there_count < assignment_stage.CODING.data_shards:
                raise Lost(stripe, there_count)
            now = self.held(stripe)
            if not before <= now:
                raise Lost(stripe, before, now)
            self.written[stripe] = now

    def _places(self, stripe: str) -> list[tuple[memory_node.MemoryNode, memory_node.ShardKey]]:
        places = enumerate(self.stage.group(stripe).places)
        return [
            (self.stage.node(place.node), memory_node.key_of(stripe, index, place))
            for index, place in places
        ]

    def happen(self) -> None:
        """One thing, or none."""
        gone = [name for name in self.stage.directory if name in self.stage.client.unreachable]
        match self.rng.randrange(6):
            case 0 if len(gone) < 2:
                self.stage.lose(self.rng.choice(sorted(self.stage.directory)))
            case 1 if gone:
                self.stage.bring_back(self.rng.choice(gone))
            case 2 | 3:
                self.write()
            case 4:
                self.rebuild()
            case _:
                self.operators[self.rng.randrange(2)] = self.operator()

    def write(self) -> None:
        """A writer opens a group that it may use, or seals one, as its node knows the group."""
        alive = [
            node
            for name, node in sorted(self.stage.client.nodes.items())
            if name not in self.stage.client.unreachable
        ]
        node = self.rng.choice(alive)
        (writer,) = node.writers.values()
        usable = sorted(name for name, group in writer.groups.items() if group.usable)
        if not usable:
            return
        stripe = self.rng.choice(usable)
        group = writer.groups[stripe]
        places = node.assignments[stripe].shards
        shards = []
        for index, place in enumerate(places):
            member = self.stage.node(place.node)
            shard = member.shards[memory_node.key_of(stripe, index, place)]
            away = member.name in self.stage.client.unreachable
            # A member takes nothing from a writer of another generation than its own.
            takes = not away and shard.generation == group.generation
            shards.append((member, memory_node.key_of(stripe, index, place), shard, takes))
        wanted = node_record.ShardState.OPEN if group.open else node_record.ShardState.ASSIGNED
        if not all(takes and shard.state is wanted for _, _, shard, takes in shards):
            if group.open:
                # It leaves the group; what is there is sealed where that can be.
                node.seal_group(stripe)
                for member, key, shard, takes in shards:
                    if takes and shard.state is node_record.ShardState.OPEN:
                        member.put_shard(key, node_record.ShardState.SEALED, written_bytes=4096)
            return
        if group.open:
            node.seal_group(stripe)
        else:
            node.open_group(stripe)
        state = node_record.ShardState.SEALED if group.open else node_record.ShardState.OPEN
        for member, key, _, _ in shards:
            member.put_shard(key, state, written_bytes=4096)
        self.written[stripe] = self.held(stripe)

    def rebuild(self) -> None:
        """Nodes that are there rebuild what can be, from members that they can reach."""
        for name, node in sorted(self.stage.client.nodes.items()):
            if name in self.stage.client.unreachable:
                continue
            for key, shard in list(node.shards.items()):
                if shard.state is node_record.ShardState.REBUILDING:
                    self._rebuild(node, key)

    def _rebuild(self, node: memory_node.MemoryNode, key: memory_node.ShardKey) -> None:
        states = []
        for index, place in enumerate(node.assignments[key[0]].shards):
            other = self.stage.node(place.node)
            found = other.shards.get(memory_node.key_of(key[0], index, place))
            if other.name not in self.stage.client.unreachable and found is not None:
                states.append(found.state)
        rebuilding = node_record.ShardState.REBUILDING
        if sum(state in WITH_DATA for state in states) >= assignment_stage.CODING.data_shards:
            node.put_shard(key, node_record.ShardState.SEALED, written_bytes=4096)
        elif len(states) == 3 and set(states) <= {rebuilding, node_record.ShardState.ASSIGNED}:
            node.put_shard(key, node_record.ShardState.ASSIGNED, written_bytes=0)

    async def step(self, passes_count: int = 1) -> None:
        """Something happens while both operators make passes."""
        for _ in range(passes_count):

            async def run(operator: stripe_assigner.StripeAssigner) -> None:
                try:
                    await operator.run()
                except errors.TransientError:
                    return

            await asyncio.gather(*map(run, self.operators))
            self.check()
            await self.line.land()
            self.check()
            self.stage.clock.go(assignment_stage.PASS_SECONDS)


async def _live(world: World) -> None:
    await world.step(3)
    for _ in range(STEPS_COUNT):
        world.happen()
        await world.step(world.rng.choice([1, 1, 2, PASSES_OF_GRACE + 2]))


async def _live_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        await _live(World(seed))


async def test_without_the_rule_that_says_when_a_group_is_whole_data_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that the stories below show something: one in six notices.
    monkeypatch.setattr(stripe_judgement, "is_whole", stripe_judgement.is_taken)
    with pytest.raises(Lost):
        await _live_all(range(60))


@pytest.mark.parametrize("seed", range(16))
async def test_no_data_is_given_up_and_all_ends_well(seed: int) -> None:
    world = World(seed)
    await _live(world)
    # From here on nothing more goes wrong.
    world.line.faults_ratio = 0.0
    for name in world.stage.directory:
        world.stage.bring_back(name)
    for _ in range(12):
        world.rebuild()
        await world.step()
    # Whatever is open is left, and sealed where it is.
    for node in world.stage.client.nodes.values():
        (writer,) = node.writers.values()
        for name in [name for name, group in writer.groups.items() if group.open]:
            node.seal_group(name)
    for node in world.stage.client.nodes.values():
        for key, shard in list(node.shards.items()):
            if shard.state is node_record.ShardState.OPEN:
                node.put_shard(key, node_record.ShardState.SEALED, written_bytes=4096)
    for _ in range(12):
        world.rebuild()
        await world.step()
    quiet = world.stage.operator()
    await world.stage.run(quiet, 2)
    world.stage.stripes.writes.clear()
    summary = await world.stage.run(quiet)
    assert (world.stage.stripes.writes, summary.handed_count, summary.released_count) == ([], 0, 0)
    assert summary.problems == []
    for group in world.stage.groups():
        told = assignment_stage.told_of(group)
        expected = stripe_group.State.HEALTHY if told.holds_data else stripe_group.State.WRITING
        assert (group.name, told.state, told.healthy_count) == (group.name, expected, 3)
        assert told.holds_data is (group.name in world.written)
    stock = [group for group in world.stage.groups() if group.name not in world.written]
    assert len(stock) == 6 * assignment_stage.STOCK_COUNT
    # Nothing is kept for what lies elsewhere.
    places = {
        (place.device_id, place.offset_bytes)
        for group in world.stage.groups()
        for place in group.places
    }
    for node in world.stage.client.nodes.values():
        for device_id, device in node.devices.items():
            for zone in device.held_zones:
                assert (device_id, zone * memory_node.ZONE_BYTES) in places
