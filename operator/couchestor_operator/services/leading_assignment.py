"""The ports of the assigner, which change nothing when the Lease is not held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from couchestor_domain.node_api import assignment, encoding_request, node_record
from couchestor_operator.control import stripe_group
from couchestor_operator.ports import node_client, stripe_store
from couchestor_operator.services import leading_ports


class LeadingStripes:
    """A ``StripeStore``; writes raise ``LeaseLostError`` where ``is_leading`` is False."""

    def __init__(self, inner: stripe_store.StripeStore, is_leading: Callable[[], bool]) -> None:
        self._inner = inner
        self._is_leading = is_leading

    async def every(self) -> Sequence[stripe_group.StripeGroup]:
        """As the inner one."""
        return await self._inner.every()

    async def is_there(self, name: str) -> bool:
        """As the inner one."""
        return await self._inner.is_there(name)

    async def make(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        return await self._inner.make(group)

    async def move(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        return await self._inner.move(group)

    async def tell(
        self, group: stripe_group.StripeGroup, told: stripe_group.Told
    ) -> stripe_group.StripeGroup:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        return await self._inner.tell(group, told)


class LeadingNodes:
    """A ``NodeClient``; what changes a node raises ``LeaseLostError`` where it is not held."""

    def __init__(self, inner: node_client.NodeClient, is_leading: Callable[[], bool]) -> None:
        self._inner = inner
        self._is_leading = is_leading

    async def state(self, endpoint: node_client.Endpoint) -> node_record.NodeRecord:
        """As the inner one."""
        return await self._inner.state(endpoint)

    async def shards(
        self, endpoint: node_client.Endpoint, *, since: int, begun: int
    ) -> node_record.ShardPage:
        """As the inner one."""
        return await self._inner.shards(endpoint, since=since, begun=begun)

    async def assign(self, endpoint: node_client.Endpoint, wanted: assignment.Assignment) -> None:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        await self._inner.assign(endpoint, wanted)

    async def release(
        self, endpoint: node_client.Endpoint, stripe: str, *, generation: int
    ) -> None:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        await self._inner.release(endpoint, stripe, generation=generation)

    async def encode(
        self, endpoint: node_client.Endpoint, request: encoding_request.EncodingRequest
    ) -> encoding_request.EncodingState:
        """As the inner one."""
        leading_ports.check(self._is_leading)
        return await self._inner.encode(endpoint, request)

    async def encoding(
        self, endpoint: node_client.Endpoint, volume: str
    ) -> encoding_request.EncodingState | None:
        """As the inner one."""
        return await self._inner.encoding(endpoint, volume)
