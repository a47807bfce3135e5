"""Nodes in memory, asked without a network that could be slow or be away unless a test says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import memory_node

from couchestor_domain import errors
from couchestor_domain.node_api import assignment, encoding_request, node_record
from couchestor_operator.ports import node_client


class MemoryNodes:
    """Implements ``ports.node_client.NodeClient``."""

    def __init__(self) -> None:
        self.nodes: dict[str, memory_node.MemoryNode] = {}
        self.unreachable: set[str] = set()
        """Nodes that nobody can connect to."""
        self.failing: set[str] = set()
        """Nodes that answer everything with an error."""
        self.asked: list[tuple[str, str]] = []
        """Node and what it was asked for."""

    def put(self, node: memory_node.MemoryNode) -> node_client.Endpoint:
        """Have a node. Returns: where it is."""
        self.nodes[node.name] = node
        return node_client.Endpoint(node=node.name, url=f"memory://{node.name}")

    async def state(self, endpoint: node_client.Endpoint) -> node_record.NodeRecord:
        """As the node is."""
        with self._asked(endpoint, "state") as node:
            return node.state()

    async def shards(
        self, endpoint: node_client.Endpoint, *, since: int, begun: int
    ) -> node_record.ShardPage:
        """Three at a time."""
        with self._asked(endpoint, "shards") as node:
            return node.page(since, begun=begun)

    async def assign(self, endpoint: node_client.Endpoint, wanted: assignment.Assignment) -> None:
        """As the node does."""
        with self._asked(endpoint, "assign") as node:
            node.assign(wanted)

    async def release(
        self, endpoint: node_client.Endpoint, stripe: str, *, generation: int
    ) -> None:
        """As the node does."""
        with self._asked(endpoint, "release") as node:
            node.release(stripe, generation=generation)

    async def encode(
        self, endpoint: node_client.Endpoint, request: encoding_request.EncodingRequest
    ) -> encoding_request.EncodingState:
        """As the node does."""
        with self._asked(endpoint, "encode") as node:
            return node.encode(request)[0]

    async def encoding(
        self, endpoint: node_client.Endpoint, volume: str
    ) -> encoding_request.EncodingState | None:
        """As the node says."""
        with self._asked(endpoint, "encoding") as node:
            return node.encodings.get(volume)

    @contextlib.contextmanager
    def _asked(self, endpoint: node_client.Endpoint, what: str) -> Iterator[memory_node.MemoryNode]:
        self.asked.append((endpoint.node, what))
        node = self.nodes.get(endpoint.node)
        if node is None or endpoint.node in self.unreachable:
            raise errors.NodeUnreachableError(f"node {endpoint.node} cannot be reached")
        if endpoint.node in self.failing:
            raise errors.NodeApiError(f"node {endpoint.node} answered 500")
        try:
            yield node
        except memory_node.Refused as exc:
            raise node_client.error_of(exc.complaint, where=f"node {node.name}") from exc
