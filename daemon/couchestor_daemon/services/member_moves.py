"""Members of sealed groups moved between devices: off retiring ones, and onto emptier ones.

One member at a time is copied to a zone of another device, and swapped in if nothing in the group
waits for a repair by then (``services.member_replacement``). It is read from where it is, verified
block by block; what does not verify is decoded from the others, as a rebuild does it.

Until the swap the old member is the member, and afterwards both hold it until the grace of the old
zone is over: so the group survives at every moment what it survived before. It survives no less
afterwards either, because a device is only chosen whose failure domain holds no more of the other
members than that of the old one does (``couchestor_domain.balance``).

Balancing begins when the used shares of the fullest and the emptiest device differ by more than an
option says, and goes on to half of that, so that what clients write meanwhile does not make it
begin again at once. It ends because each move lowers a potential.

No event names a move: zones opened, closed and reset tell it. ``Reconstruction...`` is for what was
lost, ``Replica...`` for copies of volumes. See docs/adr/0011.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    balance_survey,
    member_rebuild,
    member_replacement,
    repair_tools,
    replacement_zones,
    stripe_runs,
)
from couchestor_domain import balance, errors, event_publisher, geometry, ids

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Between looks while there is nothing to move."""
LOOKS_PER_RETRY: Final = 120
"""Before a group is tried again that could not be moved."""
MOVES_TRIED_MAX: Final = 4
"""Of those off retiring devices, in one look, when others take the zones first."""
ENDED_SHARE: Final = 0.5
"""Balancing goes on until the difference is this part of the one at which it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When members move."""

    gap_percent: int = 10
    """By how much used shares of devices may differ; 100: nothing is balanced."""
    dead_percent: int = 50
    """A group of which so much is dead is emptied instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What people see of it."""

    balance_zones_count: int = 0
    """About as many are still to be moved to emptier devices; 0: devices are equal enough, or no
    group allows it."""
    zones_left: dict[ids.DeviceId, int] = field(default_factory=dict)
    """Retiring device -> its zones that are not free yet."""
    moved_count: int = 0
    """Members, by this process."""
    moved_bytes: int = 0
    failed_count: int = 0
    """Groups that could not be moved as things are."""


class MemberMoves:
    """Background work (see ``services.background``).

    Args:
        zones: Shared with the rebuild.
        wanted: The geometry of new groups while all devices are in service.
        reserve_zones_count: Zones of each device that nothing moves to.
        must_wait: Whether something more urgent is at work: what is under way is given up then.
        now_seconds: Monotonic clock.
        look_seconds: Between looks when there is nothing to do.
        report: Told when the progress has changed.
    """

    name = "balance"

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        zones: replacement_zones.ReplacementZones,
        wanted: geometry.StripeGeometry,
        reserve_zones_count: int,
        limits: Limits,
        must_wait: Callable[[], bool],
        publisher: event_publisher.EventPublisher,
        now_seconds: Callable[[], float],
        look_seconds: float = LOOK_SECONDS,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._tools = tools
        self._gap_percent = limits.gap_percent
        self._must_wait = must_wait
        self._now_seconds = now_seconds
        self._look_seconds = look_seconds
        self._report = report
        self._survey = balance_survey.BalanceSurvey(
            index=tools.index,
            media=tools.media,
            wanted=wanted,
            reserve_zones_count=reserve_zones_count,
            dead_percent=limits.dead_percent,
        )
        self._replacement = member_replacement.MemberReplacement(
            tools,
            zones=zones,
            publisher=publisher,
            on_failed=self._attempt_failed,
            on_replaced=self._attempt_replaced,
            unless_damaged=True,
        )
        self._is_balancing = False
        self._retry_at: dict[int, float] = {}
        self._moved_count = 0
        self._shown = Progress()
        self._is_shown = False

    @property
    def progress(self) -> Progress:
        """As of the last look."""
        return self._shown

    def will_copy(self, reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        """Whether this work moves the members of a group off retiring devices, so that nobody else
        need empty it."""
        return record.group_id not in self._put_off() and self._survey.has_spare(reader, record)

    async def step(self) -> float:
        """Go on with a move, or begin the next one.

        Raises:
            CouchestorError: it could not go on; what was under way has been given up.
        """
        if self._must_wait() and self._replacement.work is not None:
            self._replacement.give_up()
        return await self._replacement.step(self._begin_next)

    # -- what to do -----------------------------------------------------------------------------

    async def _begin_next(self) -> float:
        if self._must_wait():
            return self._look_seconds
        for move in await self._look():
            if await self._begin(move):
                return 0.0
        return self._look_seconds

    def _put_off(self) -> set[int]:
        now = self._now_seconds()
        self._retry_at = {group: at for group, at in self._retry_at.items() if at > now}
        return set(self._retry_at)

    async def _look(self) -> Iterable[balance.Move]:
        """Moves to be tried in turn: off retiring devices first."""
        found = await self._survey.look(leave_out=self._put_off())
        move = self._next_balancing(found)
        self._show(
            balance_zones_count=balance.excess_count(found.shares.values())
            if self._is_balancing
            else 0,
            zones_left=found.zones_left,
        )
        return [*found.leaving[:MOVES_TRIED_MAX], *([] if move is None else [move])]

    def _next_balancing(self, found: balance_survey.Outlook) -> balance.Move | None:
        limit = self._gap_percent / 100
        part = ENDED_SHARE if self._is_balancing else 1.0
        move = None
        if balance.gap(found.shares.values()) > limit * part:
            move = balance.next_move(found.shares, found.groups, gap_min=limit * part)
        self._is_balancing = move is not None
        return move

    async def _begin(self, move: balance.Move) -> bool:
        """Start on a move; False: there is no place for it any more."""
        with self._tools.index.read() as reader:
            value = reader.get(media_records.group_key(move.group_id))
            if value is None:
                return False
            record = media_records.unpack(media_records.GroupRecord, value)
            if self._survey.movable(reader, record) is None:
                return False
        try:
            await self._replacement.take_up(record, [move.member_index], target=move.target)
        except (errors.StoreFullError, errors.StoreReadOnlyError):
            return False  # Others were quicker.
        return True

    # -- what became of it ----------------------------------------------------------------------

    def _attempt_failed(self, work: member_rebuild.MemberRebuild, why: Exception) -> None:
        group_id = work.record.group_id
        if isinstance(why, stripe_runs.LostStripeError):
            logger.warning("group %d stays where it is: %s", group_id, why)
        self._retry_at[group_id] = self._now_seconds() + LOOKS_PER_RETRY * self._look_seconds

    def _attempt_replaced(self, work: member_rebuild.MemberRebuild) -> None:
        self._moved_count += 1
        for index, zone in work.fresh.items():
            logger.debug(
                "member %d of group %d is on device %s now",
                index,
                work.record.group_id,
                zone.device_id,
            )

    def _show(self, *, balance_zones_count: int, zones_left: dict[ids.DeviceId, int]) -> None:
        fresh = Progress(
            balance_zones_count=balance_zones_count,
            zones_left=zones_left,
            moved_count=self._moved_count,
            moved_bytes=self._replacement.done_bytes,
            failed_count=len(self._retry_at),
        )
        if fresh != self._shown or not self._is_shown:
            self._shown, self._is_shown = fresh, True
            self._report(fresh)
