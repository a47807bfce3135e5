"""Stripe groups that take no more stripes, until they are sealed.

Sealing is a commit, and it comes after the end of every commit that refers to a stripe of the
group. So whoever finds a group sealed finds every stripe of it that will ever be referred to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, open_group
from couchestor_domain import errors, event_publisher, events

logger = logging.getLogger(__name__)


class GroupSealer:
    """The groups of one writer between their last stripe and their seal.

    One task at most seals, owned here: the end of a commit may be what makes a group ready, and
    nobody may wait for the next commit there.

    Args:
        submit: Commits an operation through the group commit.
    """

    def __init__(
        self,
        *,
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        publisher: event_publisher.EventPublisher,
    ) -> None:
        self._submit = submit
        self._publisher = publisher
        self._waiting: list[open_group.OpenGroup] = []
        self._task: asyncio.Task[None] | None = None
        self._is_told = False
        """Whether people know that something could not be sealed."""

    def take_over(self, group: open_group.OpenGroup) -> None:
        """Seal a group that takes no more stripes, as soon as all in it are settled."""
        self._waiting.append(group)
        self.wake()

    def wake(self) -> None:
        """Seal what is ready by now, also what could not be sealed before. Does not wait."""
        if self._task is None and self._ready():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def drain(self) -> None:
        """Wait until nothing is being sealed."""
        while (task := self._task) is not None:
            await asyncio.wait([task])

    def _ready(self) -> list[open_group.OpenGroup]:
        return [group for group in self._waiting if not group.unsettled_count]

    async def _run(self) -> None:
        try:
            while ready := self._ready():
                await self._seal(ready)
                self._waiting = [group for group in self._waiting if group not in ready]
            self._is_told = False
        except errors.CouchestorError as exc:
            if not self._is_told:  # Once: it is tried again every few seconds.
                logger.warning("full stripe groups are sealed later: %s", exc)
            self._is_told = True
        finally:
            self._task = None

    async def _seal(self, groups: Sequence[open_group.OpenGroup]) -> None:
        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            for group in groups:
                seal(txn, group.record.group_id)

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        for group in groups:
            for zone in group.zones:
                self._publisher.publish(
                    events.ZoneClosed(
                        device_id=zone.device_id,
                        zone_index=zone.zone_index,
                        role="group",
                        owner_id=group.record.group_id,
                        written_bytes=group.offset_bytes,
                    )
                )


def seal(txn: index_port.IndexWriter, group_id: int) -> None:
    """Record that a group takes no more stripes and has no unsettled one.

    The record is read here: its members may have been replaced since it was opened.
    """
    key = media_records.group_key(group_id)
    value = txn.get(key)
    assert value is not None, group_id
    record = media_records.unpack(media_records.GroupRecord, value)
    txn.put(
        key,
        media_records.pack(
            msgspec.structs.replace(record, state=int(media_records.ZoneSetState.SEALED))
        ),
    )
