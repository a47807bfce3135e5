"""A group cut into runs of stripes that lie together, a few small ones or one large one each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import group_walk, run_shards
from couchestor_domain import ids, units

RUN_STRIPES_MAX: Final = 64
WINDOW_BYTES_MIN: Final = 64 * units.KIB
WINDOW_BYTES_MAX: Final = units.MIB
NO_WINDOW: Final = (0, memoryview(b""))


class RunPlan:
    """The stripes of a group by offset.

    Args:
        end_bytes: ``group_walk.end_bytes`` of the group.
        run_bytes: Longest run, in bytes of one member, unless a single stripe is longer.
    """

    def __init__(
        self,
        media: media_port.Media,
        record: media_records.GroupRecord,
        *,
        end_bytes: int,
        run_bytes: int,
    ) -> None:
        self._walk: AsyncIterator[group_walk.FoundStripe] = group_walk.stripes(
            ReadAhead(media, end_bytes=end_bytes), record, end_bytes=end_bytes
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


class ReadAhead:
    """Serves the small reads of a walk from larger ones, one window for each zone.

    A window grows while the walk goes on near by, and shrinks when it leaps further than a window
    ever reaches: between the headers of large shards lies nothing that it looks at. What is read
    beside them is read again with the shards soon, out of a cache if there is one; a wait for the
    medium per header costs more.
    """

    def __init__(self, media: media_port.Media, *, end_bytes: int) -> None:
        self._media = media
        self._end_bytes = units.align_down(end_bytes, units.BLOCK_BYTES)
        self._windows: dict[ids.ZoneAddress, tuple[int, memoryview]] = {}

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        """From the window, if the bytes are there."""
        start, window = self._windows.get(zone, NO_WINDOW)
        inside = offset_bytes - start
        if not 0 <= inside <= inside + len(buffer) <= len(window):
            return False
        buffer[:] = window[inside : inside + len(buffer)]
        return True

    async def read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None:
        """Move the window here. Raises DeviceError."""
        start, window = self._windows.pop(zone, NO_WINDOW)
        wanted = len(window) or WINDOW_BYTES_MIN
        if start <= offset_bytes <= start + len(window) + WINDOW_BYTES_MAX // 2:
            wanted = min(2 * wanted, WINDOW_BYTES_MAX)
        else:
            wanted = max(wanted // 2, WINDOW_BYTES_MIN)
        length = min(max(wanted, len(buffer)), self._end_bytes - offset_bytes)
        if length < len(buffer):
            await self._media.read(zone, offset_bytes, buffer)
            return
        # Filled again where it can be: fresh memory costs more than the bytes put there.
        fresh = window if len(window) == length else memoryview(bytearray(length))
        await self._media.read(zone, offset_bytes, fresh)
        self._windows[zone] = (offset_bytes, fresh)
        buffer[:] = fresh[: len(buffer)]
