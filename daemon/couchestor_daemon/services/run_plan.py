"""A group cut into runs of stripes that lie together, a few small ones or one large one each."""

from __future__ import annotations

import collections
import mmap
from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import group_walk, run_shards
from couchestor_domain import ids, units

RUN_STRIPES_MAX: Final = 64
WINDOW_BYTES_MIN: Final = 64 * units.KIB
WINDOW_BYTES_MAX: Final = units.MIB
KEPT_WINDOWS_MAX: Final = 3
"""A run of the greatest length lies in two and a part of a third."""


class Medium(Protocol):
    """The part of ``ports.media.Media`` that reading ahead needs."""

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None: ...


class RunPlan:
    """The stripes of a group by offset.

    Args:
        end_bytes: ``group_walk.end_bytes`` of the group.
        run_bytes: Longest run, in bytes of one member, unless a single stripe is longer.
        past_cache: Read what is on the medium. No cache has it at hand when the run is read, so
            what the walk has read is kept for ``fill``.
    """

    def __init__(
        self,
        media: Medium,
        record: media_records.GroupRecord,
        *,
        end_bytes: int,
        run_bytes: int,
        past_cache: bool = False,
    ) -> None:
        self._ahead = ReadAhead(media, end_bytes=end_bytes, past_cache=past_cache)
        self._walk: AsyncIterator[group_walk.FoundStripe] = group_walk.stripes(
            self._ahead, record, end_bytes=end_bytes
        )
        self._run_bytes = run_bytes
        self._next: group_walk.FoundStripe | None = None

    async def next_run(self) -> list[group_walk.FoundStripe]:
        """The next run; empty behind the last one."""
        planned: list[group_walk.FoundStripe] = []
        while len(planned) < RUN_STRIPES_MAX:
            if self._next is None:
                self._next = await anext(self._walk, None)
            found = self._next
            if found is None:
                break
            if planned and (
                found.location.stripe_offset_bytes != run_shards.end_bytes_of(planned[-1])
                or run_shards.length_bytes([planned[0], found]) > self._run_bytes
            ):
                break
            planned.append(found)
            self._next = None
        return planned

    def fill(self, zone: ids.ZoneAddress, offset_bytes: int, view: memoryview) -> bool:
        """Fill in a member's part of the last run out of what the walk has read, if all of it is
        still there; ``view`` is undefined if not."""
        return self._ahead.fill(zone, offset_bytes, view)


class _Window(NamedTuple):
    zone: ids.ZoneAddress | None
    start_bytes: int
    content: memoryview

    @property
    def end_bytes(self) -> int:
        return self.start_bytes + len(self.content)


_NO_WINDOW: Final = _Window(None, 0, memoryview(b""))


class ReadAhead:
    """Serves the small reads of a walk from larger ones, one window for each zone.

    A window grows while the walk goes on near by, and shrinks when it leaps further than a window
    ever reaches: between the headers of large shards lies nothing that it looks at. Otherwise it
    begins where the one before it ended, so that together they hold what the walk has passed. What
    is read beside the headers is wanted with the shards soon, out of a cache or by ``fill``; a wait
    for the medium per header costs more.
    """

    def __init__(self, media: Medium, *, end_bytes: int, past_cache: bool = False) -> None:
        self._media = media
        self._end_bytes = units.align_down(end_bytes, units.BLOCK_BYTES)
        self._past_cache = past_cache
        self._windows: dict[ids.ZoneAddress, _Window] = {}
        self._kept: collections.deque[_Window] = collections.deque()
        """Windows that were left, the oldest first; none when a cache has what they hold."""
        self._spare: memoryview | None = None
        """Filled again where it can be: fresh memory costs more than the bytes put there."""

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        """From the window, if the bytes are there."""
        window = self._windows.get(zone, _NO_WINDOW)
        inside = offset_bytes - window.start_bytes
        if not 0 <= inside <= inside + len(buffer) <= len(window.content):
            return False
        buffer[:] = window.content[inside : inside + len(buffer)]
        return True

    async def read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None:
        """Move the window here. Raises DeviceError."""
        left = self._windows.pop(zone, _NO_WINDOW)
        if left.zone is not None:
            self._leave(left)
        is_near = left.start_bytes <= offset_bytes <= left.end_bytes + WINDOW_BYTES_MAX // 2
        wanted = len(left.content) or WINDOW_BYTES_MIN
        wanted = (
            min(2 * wanted, WINDOW_BYTES_MAX) if is_near else max(wanted // 2, WINDOW_BYTES_MIN)
        )
        passed = offset_bytes - left.end_bytes
        goes_on = left.zone is not None and 0 <= passed <= wanted - len(buffer)
        start = left.end_bytes if goes_on else offset_bytes
        length = min(max(wanted, offset_bytes - start + len(buffer)), self._end_bytes - start)
        if start + length < offset_bytes + len(buffer):
            await self._media.read(zone, offset_bytes, buffer, past_cache=self._past_cache)
            return
        fresh = self._memory(length)
        await self._media.read(zone, start, fresh, past_cache=self._past_cache, in_place=True)
        self._windows[zone] = _Window(zone, start, fresh)
        buffer[:] = fresh[offset_bytes - start :][: len(buffer)]

    def fill(self, zone: ids.ZoneAddress, offset_bytes: int, view: memoryview) -> bool:
        """Copy a part of a zone from windows, if they hold all of it."""
        filled = 0
        for window in (*self._kept, self._windows.get(zone, _NO_WINDOW)):
            at = offset_bytes + filled - window.start_bytes
            if window.zone == zone and 0 <= at < len(window.content):
                part = window.content[at : at + len(view) - filled]
                view[filled : filled + len(part)] = part
                filled += len(part)
        return filled == len(view)

    def _leave(self, window: _Window) -> None:
        if not self._past_cache:
            self._spare = window.content
            return
        self._kept.append(window)
        if len(self._kept) > KEPT_WINDOWS_MAX:
            self._spare = self._kept.popleft().content

    def _memory(self, length: int) -> memoryview:
        """Aligned as media past the cache want it. Lent to a read that may outlive its wait, so
        what a read that failed was given is not filled again."""
        spare, self._spare = self._spare, None
        if spare is not None and len(spare) == length:
            return spare
        return memoryview(mmap.mmap(-1, length))
