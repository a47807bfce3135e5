"""A sealed group as runs of stripes that lie together, the shards that are wanted in memory.

Small stripes come several at a time, as one piece to be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    repair_tools,
    run_plan,
    run_shards,
    stripe_references,
)
from couchestor_domain import geometry, units

RUN_BYTES: Final = units.MIB
"""Of one member, unless a single stripe is longer."""


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
        self.decoded_count = 0
        """Shards so far that could not be copied."""
        self._tools = tools
        self._record = record
        self._targets = targets
        self._distrusted = frozenset(distrusted)
        self._codec = tools.codecs(
            geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
        )
        self._plan = run_plan.RunPlan(tools.media, record, end_bytes=end_bytes, run_bytes=RUN_BYTES)
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
            self._planned = await self._plan.next_run()
        while self._planned and self.ready is None:
            planned = self._planned
            # May be refused, and is then asked for again: so before anything is taken.
            buffer = self._tools.acquire(self._memory_bytes(planned))
            try:
                made, following = await asyncio.gather(
                    self._make(planned, buffer), self._plan.next_run(), return_exceptions=True
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

    def _memory_bytes(self, planned: Sequence[group_walk.FoundStripe]) -> int:
        copies_count = len(self._record.members) + len(self._targets)
        return run_shards.length_bytes(planned) * copies_count

    async def _make(
        self, planned: Sequence[group_walk.FoundStripe], buffer: buffers.AlignedBuffer
    ) -> Run | None:
        """The run with its content; None when every stripe of it is lost, and nobody misses it."""
        length = run_shards.length_bytes(planned)
        content = {
            index: buffer.view[position * length : (position + 1) * length]
            for position, index in enumerate(self._targets)
        }
        shards = run_shards.RunShards(
            self._tools,
            self._record,
            planned,
            memory=buffer.view[len(content) * length :],
            places=content,
            distrusted=self._distrusted,
        )
        await shards.read(self._targets)
        wanting = [sum(i not in headers for i in self._targets) for headers in shards.headers]
        lost = await shards.rebuild(self._codec, self._targets)
        self.decoded_count += sum(wanting) - sum(wanting[number] for number in lost)
        for number in lost:
            await self._check_nobody_misses(shards, number)
            for index in self._targets:
                place = shards.shard(number, index)
                place[:] = bytes(len(place))
        whole = [found for number, found in enumerate(planned) if number not in lost]
        if not whole:
            return None
        start = planned[0].location.stripe_offset_bytes
        return Run(whole, start, start + length, content, buffer)

    async def _check_nobody_misses(self, shards: run_shards.RunShards, number: int) -> None:
        live_bytes = await stripe_references.live_bytes_exactly(
            self._tools, self._record, shards.stripes[number]
        )
        if live_bytes:
            why = shards.insufficient(number)
            raise LostStripeError(f"{why}: {live_bytes} live bytes are lost") from why
