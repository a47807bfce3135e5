"""Members of a group being replaced: taken up, carried on step by step, swapped in or given up.

What a rebuild and a move do alike. Which members, and when, and what follows from a failure is
theirs to say.

    line                                             after a crash there
    commit: zones taken (role REBUILD)               given back by the next process
    reset, header, shards; members unchanged         the same
    flush, every shard read back and verified        the same
    commit, if the group is what it was: members     the group has its new members
    swapped, old zones LEFT

Until the last line the old members are the members, and they hold what they held until the grace of
their zones is over. See docs/adr/0007.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    member_rebuild,
    repair_tools,
    replacement_zones,
    stripe_runs,
)
from couchestor_domain import errors, event_publisher, events, ids

MEMORY_SECONDS: Final = 1.0
"""Before memory is asked for again: it comes back when others are done."""

OnFailed = Callable[[member_rebuild.MemberRebuild, Exception], None]
OnReplaced = Callable[[member_rebuild.MemberRebuild], None]


class MemberReplacement:
    """At most one attempt at a time.

    Args:
        zones: Where fresh zones come from; shared by all who replace members.
        unless_damaged: See ``ReplacementZones.swap``.
        on_failed: Told of an attempt that could not go on, and why: a LostStripeError, which
            nobody else is told, or a CouchestorError, which the step raises. Not of one that was
            given up because the group has changed.
        on_replaced: Told of an attempt whose fresh zones are members now.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        zones: replacement_zones.ReplacementZones,
        publisher: event_publisher.EventPublisher,
        on_failed: OnFailed,
        on_replaced: OnReplaced,
        unless_damaged: bool = False,
    ) -> None:
        self.work: member_rebuild.MemberRebuild | None = None
        """The attempt under way."""
        self.done_bytes = 0
        """Written so far, by all attempts."""
        self._tools = tools
        self._zones = zones
        self._publisher = publisher
        self._on_failed = on_failed
        self._on_replaced = on_replaced
        self._unless_damaged = unless_damaged
        self._is_clean = False
        """Whether no zone is taken but those of the attempt under way."""

    async def step(
        self, begin: Callable[[], Awaitable[float]], *, until_seconds: float | None = None
    ) -> float:
        """Go on with the attempt under way, or begin another.

        Args:
            begin: Calls ``take_up`` if there is something to do. Gives the seconds until it is
                worth calling again.
            until_seconds: As of ``MemberRebuild.advance``.

        Returns:
            As a step of ``services.background``.

        Raises:
            CouchestorError: it could not go on; what was under way has been given up.
        """
        goes_on = False
        try:
            wait_seconds = await self._step(begin, until_seconds)
            goes_on = True
        except errors.OverloadedError:
            goes_on = True
            wait_seconds = MEMORY_SECONDS
        finally:
            if not goes_on:
                self.give_up()
        return wait_seconds

    async def _step(
        self, begin: Callable[[], Awaitable[float]], until_seconds: float | None
    ) -> float:
        if self.work is not None:
            await self._go_on(self.work, until_seconds)
            return 0.0
        if not self._is_clean:
            await self._zones.free_leftovers()
            self._is_clean = True
        return await begin()

    async def take_up(
        self,
        record: media_records.GroupRecord,
        indexes: Sequence[int],
        *,
        distrusted: Collection[tuple[int, int]] = (),
        target: ids.DeviceId | None = None,
    ) -> member_rebuild.MemberRebuild:
        """Begin to replace members of a sealed group, or those of them that have a place.

        Args:
            distrusted: (stripe offset, shard index) of shards that are wrong although they verify.
            target: The device that gives the zones; None: the best.

        Raises:
            StoreFullError, StoreReadOnlyError: there is a place for none.
        """
        assert self.work is None, "one at a time"
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._tools.media, zones)
        fresh = await self._zones.take(record, indexes, bytes_min=end_bytes, target=target)
        self._is_clean = False
        self.work = member_rebuild.MemberRebuild(
            self._tools, record, fresh, distrusted=distrusted, end_bytes=end_bytes
        )
        return self.work

    def give_up(self) -> None:
        """Forget the attempt under way, if there is one; the next step frees its zones."""
        work, self.work = self.work, None
        self._is_clean = False
        if work is not None:
            self._zones.let_go(work.fresh.values())

    async def _go_on(self, work: member_rebuild.MemberRebuild, until_seconds: float | None) -> None:
        before_bytes = work.moved_bytes
        try:
            ended = await work.advance(until_seconds=until_seconds)
        except stripe_runs.LostStripeError as exc:
            self.give_up()
            self._on_failed(work, exc)
            return
        except errors.OverloadedError:
            raise
        except errors.CouchestorError as exc:
            self._on_failed(work, exc)
            raise
        finally:
            self.done_bytes += work.moved_bytes - before_bytes
        if not ended:
            return
        if await self._zones.swap(work.record, work.fresh, unless_damaged=self._unless_damaged):
            self._finish(work)
        else:
            self.give_up()

    def _finish(self, work: member_rebuild.MemberRebuild) -> None:
        self.work = None
        self._is_clean = True
        for zone in work.fresh.values():
            self._publisher.publish(
                events.ZoneClosed(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="group",
                    owner_id=work.record.group_id,
                    written_bytes=work.moved_bytes // len(work.fresh),
                )
            )
        self._on_replaced(work)
