"""A sealed group as runs of stripes that lie together, the shards that are wanted in memory.

Small stripes are read and decoded several at a time and come as one piece to be written: one by one
each would wait for its own reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.services import (
    group_walk,
    repair_tools,
    stripe_references,
    stripe_shards,
)
from couchestor_domain import errors, geometry, units

RUN_BYTES: Final = 8 * units.MIB
"""Memory of a run, unless a single stripe needs more."""
RUN_STRIPES_MAX: Final = 32


class LostStripeError(Exception):
    """Bytes that the L2P leads to cannot be had from the shards that are left."""


@dataclass(slots=True, eq=False)
class Run:
    """Stripes without a gap between them."""

    stripes: list[group_walk.FoundStripe]
    start_bytes: int
    end_bytes: int
    content: Mapping[int, memoryview]
    """Member index -> its bytes from start to end: whole shards."""
    buffer: buffers.AlignedBuffer

    def release(self) -> None:
        """Give the memory back; idempotent."""
        self.buffer.release()


class StripeRuns:
    """The runs of one group by offset.

    Args:
        targets: Members whose shards are wanted.
        distrusted: (stripe offset, shard index) of shards that are wrong although they verify.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        targets: Sequence[int],
        *,
        distrusted: Collection[tuple[int, int]],
        end_bytes: int,
    ) -> None:
        self.ready: Run | None = None
        """The run that ``prepare`` made."""
        self._tools = tools
        self._record = record
        self._targets = targets
        self._distrusted = frozenset(distrusted)
        self._codec = tools.codecs(
            geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
        )
        self._walk: AsyncIterator[group_walk.FoundStripe] = group_walk.stripes(
            tools.media, record, end_bytes=end_bytes
        )
        self._next: group_walk.FoundStripe | None = None
        self._planned: list[group_walk.FoundStripe] = []

    def take(self) -> Run | None:
        """What is ready; the caller releases it."""
        run, self.ready = self.ready, None
        return run

    def close(self) -> None:
        """Give memory back. Idempotent."""
        run = self.take()
        if run is not None:
            run.release()

    async def prepare(self) -> None:
        """Put the next run into ``ready``; nothing behind the last one.

        Raises:
            LostStripeError: a stripe that somebody misses has too few shards.
            OverloadedError: the pool lends no memory now; the next call goes on.
        """
        if not self._planned:
            self._planned = await self._plan()
        while self._planned and self.ready is None:
            planned = self._planned
            # May be refused, and is then asked for again: so before anything is taken.
            buffer = self._tools.pool.acquire(self._memory_bytes(planned))
            try:
                made, following = await asyncio.gather(
                    self._make(planned, buffer), self._plan(), return_exceptions=True
                )
                for outcome in (made, following):
                    if isinstance(outcome, BaseException):
                        raise outcome
                assert isinstance(following, list), following
                self._planned = following
                if isinstance(made, Run):
                    self.ready = made
            finally:
                if self.ready is None:
                    buffer.release()

    async def _plan(self) -> list[group_walk.FoundStripe]:
        """Stripes of the next run."""
        planned: list[group_walk.FoundStripe] = []
        while len(planned) < RUN_STRIPES_MAX:
            if self._next is None:
                self._next = await anext(self._walk, None)
            found = self._next
            if found is None:
                break
            is_apart = planned and found.location.stripe_offset_bytes != _end_of(planned[-1])
            if planned and (is_apart or self._memory_bytes([*planned, found]) > RUN_BYTES):
                break
            planned.append(found)
            self._next = None
        return planned

    def _memory_bytes(self, planned: Sequence[group_walk.FoundStripe]) -> int:
        length = _end_of(planned[-1]) - planned[0].location.stripe_offset_bytes
        return length * (len(self._record.members) + len(self._targets))

    async def _make(
        self, planned: Sequence[group_walk.FoundStripe], buffer: buffers.AlignedBuffer
    ) -> Run | None:
        start = planned[0].location.stripe_offset_bytes
        length = _end_of(planned[-1]) - start
        content = {
            index: buffer.view[position * length : (position + 1) * length]
            for position, index in enumerate(self._targets)
        }
        memory = buffer.view[len(content) * length :]
        jobs = []
        for found in planned:
            inside = found.location.stripe_offset_bytes - start
            end = inside + shard.shard_bytes(found.location.chunk_bytes)
            needed = stripe_shards.memory_bytes(self._record, found)
            places = {index: view[inside:end] for index, view in content.items()}
            jobs.append(self._make_whole(found, memory[:needed], places))
            memory = memory[needed:]
        ended = await asyncio.gather(*jobs, return_exceptions=True)
        whole = []
        for found, outcome in zip(planned, ended, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome:
                whole.append(found)
        if not whole:
            return None
        return Run(whole, start, start + length, content, buffer)

    async def _make_whole(
        self,
        found: group_walk.FoundStripe,
        memory: memoryview,
        places: Mapping[int, memoryview],
    ) -> bool:
        """The targets' shards of a stripe, in their places; zeros and False for one that is lost
        and that nobody misses."""
        offset = found.location.stripe_offset_bytes
        shards = stripe_shards.StripeShards(
            self._tools.media,
            self._record,
            found,
            memory=memory,
            places=places,
            distrusted=[index for at, index in self._distrusted if at == offset],
            run_codec=self._tools.run_codec,
            pace=self._tools.pace,
        )
        await shards.read(self._targets)
        missing = [index for index in self._targets if index not in shards.headers]
        if not missing:
            return True
        try:
            await shards.rebuild(self._codec, missing)
        except errors.InsufficientShardsError as exc:
            with self._tools.index.read() as reader:
                live_bytes = stripe_references.live_bytes(reader, found)
            if live_bytes:
                raise LostStripeError(f"{exc}: {live_bytes} live bytes are lost") from exc
            for place in places.values():
                place[:] = bytes(len(place))
            return False
        return True


def _end_of(found: group_walk.FoundStripe) -> int:
    location = found.location
    return location.stripe_offset_bytes + shard.shard_bytes(location.chunk_bytes)
