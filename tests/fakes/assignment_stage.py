"""A cluster of storage nodes in memory, and operators that assign stripe groups to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import memory_node
import memory_node_client
import memory_stripes
import set_clock

from couchestor_domain import geometry, units
from couchestor_domain.node_api import node_record
from couchestor_operator.control import ec_policy, storage_node, stripe_group
from couchestor_operator.ports import node_client, stripe_store
from couchestor_operator.services import stripe_assigner

POLICY: Final = "cold"
CODING: Final = geometry.StripeGeometry(2, 1)
GRACE_SECONDS: Final = 300.0
PASS_SECONDS: Final = 30.0
STOCK_COUNT: Final = 2


class Stage:
    """Nodes, ECStripes, and the clock."""

    def __init__(self, *, nodes_count: int = 4, is_strict: bool = False) -> None:
        self.clock = set_clock.SetClock()
        self.client = memory_node_client.MemoryNodes()
        self.stripes = memory_stripes.MemoryStripes(self.clock, is_strict=is_strict)
        self.policies = memory_stripes.MemoryEcPolicies()
        self.directory: dict[str, storage_node.StorageNode] = {}
        self.put_policy(CODING)
        for number in range(nodes_count):
            self.add_node(f"node-{number}")

    # -- the ports' side -------------------------------------------------------------------------

    async def nodes(self) -> Mapping[str, storage_node.StorageNode]:
        """See ``ports.node_directory``."""
        return dict(self.directory)

    @staticmethod
    def endpoint_of(node: storage_node.StorageNode) -> node_client.Endpoint:
        """Where its daemon is."""
        return node_client.Endpoint(node=node.name, url=f"memory://{node.address}")

    def operator(
        self,
        *,
        stripes: stripe_store.StripeStore | None = None,
        client: node_client.NodeClient | None = None,
        **terms: int,
    ) -> stripe_assigner.StripeAssigner:
        """One that knows nothing yet."""
        told = stripe_assigner.Terms(
            policy=POLICY, stock_count=STOCK_COUNT, grace_seconds=GRACE_SECONDS
        )
        return stripe_assigner.StripeAssigner(
            terms=dataclasses.replace(told, **terms),  # type: ignore[arg-type]
            directory=self,
            endpoint_of=self.endpoint_of,
            client=client or self.client,
            stripes=stripes or self.stripes,
            policies=self.policies,
            clock=self.clock,
        )

    # -- what happens ----------------------------------------------------------------------------

    def put_policy(self, coding: geometry.StripeGeometry) -> None:
        """Have the policy ask for that."""
        self.policies.policies[POLICY] = ec_policy.EcPolicy(
            name=POLICY, coding=coding, stripe_bytes=units.MIB
        )

    def add_node(
        self, name: str, *, zone: str = "", devices_count: int = 1, zones_count: int = 16
    ) -> memory_node.MemoryNode:
        """A node joins."""
        node = memory_node.MemoryNode(name, devices_count=devices_count, zones_count=zones_count)
        self.client.put(node)
        self.directory[name] = storage_node.StorageNode(
            name=name,
            address=name,
            zone=zone,
            ready=True,
            declared_lost=False,
            selected=True,
        )
        return node

    def change(self, name: str, **changes: object) -> None:
        """Have Kubernetes say something else of a node."""
        node = self.directory[name]
        self.directory[name] = dataclasses.replace(node, **changes)  # type: ignore[arg-type]

    def lose(self, name: str) -> None:
        """A node dies."""
        self.client.unreachable.add(name)
        self.change(name, ready=False)

    def bring_back(self, name: str) -> None:
        """It lives again, with all that it had."""
        self.client.unreachable.discard(name)
        self.change(name, ready=True)

    def node(self, name: str) -> memory_node.MemoryNode:
        """One of them."""
        return self.client.nodes[name]

    def group(self, name: str) -> stripe_group.StripeGroup:
        """One of them, as its ECStripe is now."""
        return self.stripes.group(name)

    def groups(self) -> list[stripe_group.StripeGroup]:
        """All of them."""
        return [self.stripes.group(name) for name in sorted(self.stripes.documents)]

    async def run(
        self, operator: stripe_assigner.StripeAssigner, passes_count: int = 1
    ) -> stripe_assigner.Summary:
        """Passes at their interval. Returns: what the last one said."""
        assert passes_count > 0
        for _ in range(passes_count):
            summary = await operator.run()
            self.clock.go(PASS_SECONDS)
        return summary

    def write(self, name: str, *, seal: bool) -> None:
        """Have the writer of a group write to it, on all its members."""
        group = self.group(name)
        writer = self.node(group.writer_node)
        if seal:
            writer.seal_group(name)
        else:
            writer.open_group(name)
        state = node_record.ShardState.SEALED if seal else node_record.ShardState.OPEN
        for node in {place.node for place in group.places}:
            self.node(node).move_on(name, state, written_bytes=4096)

    def rebuild(self, name: str) -> None:
        """Have the nodes of a group rebuild what is to be; of what was never written, nothing."""
        group = self.group(name)
        sealed, empty = node_record.ShardState.SEALED, node_record.ShardState.ASSIGNED
        state = sealed if told_of(group).holds_data else empty
        written_bytes = 4096 if state is sealed else 0
        for place in group.places:
            node = self.node(place.node)
            for key, shard in list(node.shards.items()):
                if key[0] == name and shard.state is node_record.ShardState.REBUILDING:
                    node.put_shard(key, state, written_bytes=written_bytes)


def told_of(group: stripe_group.StripeGroup) -> stripe_group.Told:
    """What was written of it."""
    assert group.told is not None
    return group.told
