"""What nodes say, asked of all of them once in a pass, each with a back-off of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from couchestor_domain import errors
from couchestor_domain.node_api import node_record
from couchestor_operator.control import node_watch, storage_node
from couchestor_operator.ports import monotonic_clock, node_client

_LOG = logging.getLogger(__name__)

ASKED_AT_ONCE_COUNT: Final = 8
PAGES_COUNT_MAX: Final = 200
"""Of one node in one pass; the next pass goes on."""
RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 60.0


class Looked(NamedTuple):
    """What came of asking."""

    accounts: Mapping[str, storage_node.Account]
    """By node, of those that said all that is needed."""
    contacts: Mapping[str, node_watch.Contact]
    faults: Mapping[str, str]
    """By node, why it said nothing that can be used, now or when it was last asked."""


@dataclass(slots=True)
class _Book:
    """What is known of the shards of a node, up to a revision."""

    node_id: str
    begun: int
    """The node's revision when all shards began to be read."""
    revision: int = 0
    shards: dict[storage_node.ShardKey, node_record.ShardRecord] = field(default_factory=dict)
    is_read: bool = False


@dataclass(slots=True)
class _Wait:
    faults_count: int = 0
    until_seconds: float = 0.0
    why: str = ""


class NodeAccounts:
    """Remembers the shards of each node, so that only what has changed is read again."""

    def __init__(
        self, client: node_client.NodeClient, clock: monotonic_clock.MonotonicClock
    ) -> None:
        self._client = client
        self._clock = clock
        self._books: dict[str, _Book] = {}
        self._waits: dict[str, _Wait] = {}

    async def look(self, endpoints: Sequence[node_client.Endpoint]) -> Looked:
        """Ask these nodes, but for those that failed a moment ago."""
        names = {endpoint.node for endpoint in endpoints}
        for name in self._books.keys() - names:
            del self._books[name]
        for name in self._waits.keys() - names:
            del self._waits[name]
        accounts: dict[str, storage_node.Account] = {}
        contacts: dict[str, node_watch.Contact] = {}
        faults: dict[str, str] = {}
        turns = asyncio.Semaphore(ASKED_AT_ONCE_COUNT)

        async def ask(endpoint: node_client.Endpoint) -> None:
            if self.is_left_alone(endpoint.node):
                contacts[endpoint.node] = node_watch.Contact.NOT_ASKED
                faults[endpoint.node] = self._waits[endpoint.node].why
                return
            async with turns:
                try:
                    accounts[endpoint.node] = await self._account(endpoint)
                    contacts[endpoint.node] = node_watch.Contact.ANSWERED
                    self._waits.pop(endpoint.node, None)
                except errors.NodeUnreachableError as exc:
                    contacts[endpoint.node] = node_watch.Contact.UNREACHABLE
                    faults[endpoint.node] = exc.message
                    self.failed(endpoint.node, exc.message)
                except errors.ControlPlaneError as exc:
                    contacts[endpoint.node] = node_watch.Contact.ANSWERED
                    faults[endpoint.node] = exc.message
                    self.failed(endpoint.node, exc.message)

        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                group.create_task(ask(endpoint))
        return Looked(accounts=accounts, contacts=contacts, faults=faults)

    def is_left_alone(self, node: str) -> bool:
        """Whether a node failed so lately that it is not asked."""
        wait = self._waits.get(node)
        return wait is not None and self._clock.monotonic_seconds() < wait.until_seconds

    def failed(self, node: str, why: str) -> None:
        """Leave a node alone for a while, longer with each time in a row."""
        wait = self._waits.setdefault(node, _Wait())
        wait.why = why
        seconds = min(RETRY_SECONDS_MIN * 2.0**wait.faults_count, RETRY_SECONDS_MAX)
        wait.faults_count = min(wait.faults_count + 1, 30)
        wait.until_seconds = self._clock.monotonic_seconds() + seconds

    async def _account(self, endpoint: node_client.Endpoint) -> storage_node.Account:
        record = await self._client.state(endpoint)
        book = self._books.get(endpoint.node)
        # A node that was set up anew, or brought back from a copy, has none of that.
        if book is None or book.node_id != record.node_id or record.revision < book.revision:
            book = self._books[endpoint.node] = _Book(record.node_id, record.revision)
        if not book.is_read or book.revision != record.revision:
            await self._read(endpoint, book, record.revision)
        return storage_node.Account(record=record, shards=book.shards)

    async def _read(self, endpoint: node_client.Endpoint, book: _Book, node_revision: int) -> None:
        if book.is_read:
            book.begun = book.revision
            book.is_read = False
        for _ in range(PAGES_COUNT_MAX):
            try:
                page = await self._client.shards(endpoint, since=book.revision, begun=book.begun)
            except errors.VersionConflictError as exc:
                if book.revision == 0:
                    raise errors.NodeApiError(
                        f"node {endpoint.node} cannot tell all its shards: {exc}"
                    ) from exc
                book.revision, book.begun = 0, node_revision
                book.shards.clear()
                continue
            for shard in page.shards:
                key = storage_node.key_of(shard)
                if shard.state is node_record.ShardState.RELEASED:
                    book.shards.pop(key, None)
                else:
                    book.shards[key] = shard
            book.revision = page.revision
            if not page.more:
                book.is_read = True
                return
        raise errors.NodeApiError(
            f"node {endpoint.node} has more shards than can be read at once: the next pass goes on"
        )
