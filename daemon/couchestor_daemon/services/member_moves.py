"""Members of sealed groups moved between devices: off retiring ones, and onto emptier ones.

One member at a time is copied to a zone of another device. It is read from where it is, verified
block by block; what does not verify is decoded from the others, as a rebuild does it.

    line                                             after a crash there
    commit: zone taken (role REBUILD)                given back by the next process
    reset, header, shards; member unchanged          the same
    flush, every shard read back and verified        the same
    commit, if the group is what it was and nothing  the group has its new member
    in it waits for a repair: member swapped, the
    old zone LEFT

Until the last line the old member is the member, and afterwards both hold it until the grace of the
old zone is over: so the group survives at every moment what it survived before. It survives no
less afterwards either, because a device is only chosen whose failure domain holds no more of the
other members than that of the old one does (``couchestor_domain.balance``).

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
    group_walk,
    member_rebuild,
    repair_tools,
    replacement_zones,
    stripe_runs,
)
from couchestor_domain import balance, errors, event_publisher, events, geometry, ids

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


@dataclass(slots=True, eq=False)
class _Attempt:
    work: member_rebuild.MemberRebuild
    move: balance.Move


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
        self._zones = zones
        self._gap_percent = limits.gap_percent
        self._must_wait = must_wait
        self._publisher = publisher
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
        self._attempt: _Attempt | None = None
        self._is_clean = False
        """Whether no zone is taken but that of the attempt under way."""
        self._is_balancing = False
        self._retry_at: dict[int, float] = {}
        self._moved_count = 0
        self._moved_bytes = 0
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
        goes_on = False
        try:
            wait_seconds = await self._step()
            goes_on = True
        except errors.OverloadedError:
            goes_on = True  # Memory comes back when others are done.
            wait_seconds = 1.0
        finally:
            if not goes_on:
                self._give_up()
        return wait_seconds

    async def _step(self) -> float:
        if self._must_wait():
            if self._attempt is not None:
                self._give_up()
        elif self._attempt is not None:
            await self._go_on(self._attempt)
            return 0.0
        if not self._is_clean:
            await self._zones.free_leftovers()
            self._is_clean = True
        if self._must_wait():
            return self._look_seconds
        for move in await self._look():
            if await self._begin(move):
                return 0.0
        return self._look_seconds

    def _give_up(self) -> None:
        """Forget the move under way; the next step frees its zone."""
        attempt, self._attempt = self._attempt, None
        self._is_clean = False
        if attempt is not None:
            self._zones.let_go(attempt.work.fresh.values())

    # -- what to do -----------------------------------------------------------------------------

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
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._tools.media, zones)
        try:
            fresh = await self._zones.take(
                record, [move.member_index], bytes_min=end_bytes, target=move.target
            )
        except (errors.StoreFullError, errors.StoreReadOnlyError):
            return False  # Others were quicker.
        self._is_clean = False
        self._attempt = _Attempt(
            member_rebuild.MemberRebuild(
                self._tools, record, fresh, distrusted=(), end_bytes=end_bytes
            ),
            move,
        )
        return True

    # -- doing it -------------------------------------------------------------------------------

    async def _go_on(self, attempt: _Attempt) -> None:
        work = attempt.work
        before_bytes = work.moved_bytes
        try:
            ended = await work.advance()
        except stripe_runs.LostStripeError as exc:
            logger.warning("group %d stays where it is: %s", work.record.group_id, exc)
            self._fail(work.record.group_id)
            return
        except errors.OverloadedError:
            raise
        except errors.CouchestorError:
            self._fail(work.record.group_id)
            raise
        finally:
            self._moved_bytes += work.moved_bytes - before_bytes
        if not ended:
            return
        if await self._zones.swap(work.record, work.fresh, unless_damaged=True):
            self._finish(attempt)
        else:
            self._give_up()

    def _finish(self, attempt: _Attempt) -> None:
        self._attempt = None
        self._is_clean = True
        work = attempt.work
        self._moved_count += 1
        for index, zone in work.fresh.items():
            logger.debug(
                "member %d of group %d is on device %s now",
                index,
                work.record.group_id,
                zone.device_id,
            )
            self._publisher.publish(
                events.ZoneClosed(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="group",
                    owner_id=work.record.group_id,
                    written_bytes=work.moved_bytes,
                )
            )

    def _fail(self, group_id: int) -> None:
        self._give_up()
        self._retry_at[group_id] = self._now_seconds() + LOOKS_PER_RETRY * self._look_seconds

    def _show(self, *, balance_zones_count: int, zones_left: dict[ids.DeviceId, int]) -> None:
        fresh = Progress(
            balance_zones_count=balance_zones_count,
            zones_left=zones_left,
            moved_count=self._moved_count,
            moved_bytes=self._moved_bytes,
            failed_count=len(self._retry_at),
        )
        if fresh != self._shown or not self._is_shown:
            self._shown, self._is_shown = fresh, True
            self._report(fresh)
