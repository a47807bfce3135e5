"""Rows of shards that cannot be read, decoded from rows of others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.services import chunk_rows, shard_rows, stray_reads
from couchestor_domain import errors, geometry, units

INLINE_WORK_BYTES_MAX: Final = 256 * units.KIB
"""Longer decoding leaves the event loop."""

Codecs = Callable[[geometry.StripeGeometry, int], codec_port.EcCodec]
RunCodec = Callable[[Callable[[], None]], Awaitable[object]]


class StripeDecoder:
    """Gathers what a code needs and decodes it.

    Args:
        codecs: Codec of a geometry and codec id.
        run_codec: Runs decoding of large ranges, e.g. on the codec pool.
    """

    def __init__(
        self,
        rows: shard_rows.ShardRows,
        *,
        codecs: Codecs,
        run_codec: RunCodec,
        strays: stray_reads.StrayReads,
    ) -> None:
        self._rows = rows
        self._strays = strays
        self._codecs = codecs
        self._run_codec = run_codec

    async def decode(
        self,
        stripe: shard_rows.Stripe,
        wants: Sequence[chunk_rows.Want],
        served: Sequence[chunk_rows.Want],
    ) -> None:
        """Fill the targets of ``wants``; those of ``served`` hold verified bytes already."""
        for rows in chunk_rows.merged(want.rows for want in wants):
            here = [w for w in wants if rows.start <= w.rows.start and w.rows.end <= rows.end]
            # Straight into the targets that have the shape of the rows.
            rebuilt = chunk_rows.whole_rows(here, rows)
            in_place = set(rebuilt)
            for want in here:
                if want.index not in in_place:
                    rebuilt[want.index] = memoryview(bytearray(rows.end - rows.start))
            available = chunk_rows.whole_rows(served, rows)
            await self._rebuild_rows(stripe, rows, rebuilt, available)
            for want in here:
                if want.index in in_place:
                    want.served = True
                else:
                    want.accept(rebuilt[want.index][want.rows.start - rows.start :])

    async def decoded_apart(
        self,
        stripe: shard_rows.Stripe,
        wants: Sequence[chunk_rows.Want],
        everything: Sequence[chunk_rows.Want],
        shunned: Collection[int],
    ) -> list[tuple[chunk_rows.Want, memoryview]]:
        """What is not served yet, decoded into memory of its own without the shards concerned.

        Args:
            shunned: Further shards that are not asked unless they are needed.

        Raises:
            InsufficientShardsError: the other shards do not suffice.
        """
        late = [want for want in wants if not want.served]
        served = [want for want in everything if want.served]
        without = {want.index for want in late}
        shape = stripe.members.geometry
        if shape.shards_count - len(without.union(shunned, stripe.failed)) >= shape.data_shards:
            without.update(shunned)
        decoded: list[tuple[chunk_rows.Want, memoryview]] = []
        for rows in chunk_rows.merged(want.rows for want in late):
            here = [w for w in late if rows.start <= w.rows.start and w.rows.end <= rows.end]
            rebuilt = {w.index: memoryview(bytearray(rows.end - rows.start)) for w in here}
            available = chunk_rows.whole_rows(served, rows)
            if shape.shards_count - len(without.union(stripe.failed, available)) > 0:
                await self._gather_first(stripe, rows, available, without)
            await self._rebuild_rows(stripe, rows, rebuilt, available, without=without)
            decoded += [(w, rebuilt[w.index][w.rows.start - rows.start :]) for w in here]
        return decoded

    async def _rebuild_rows(
        self,
        stripe: shard_rows.Stripe,
        rows: chunk_rows.Rows,
        rebuilt: Mapping[int, memoryview],
        available: dict[int, memoryview],
        *,
        without: Collection[int] = (),
    ) -> None:
        """Decode the rows of the shards named in ``rebuilt`` into the memory given there.

        Args:
            available: Rows that are known already; filled up with what else is read.
            without: Shards not to ask.
        """
        shape = stripe.members.geometry
        codec = self._codecs(shape, stripe.members.codec_id)
        wanted_count = shape.data_shards
        while True:
            await self._gather_shards(stripe, rows, available, wanted_count, without)

            def work() -> None:
                codec.reconstruct(available, rebuilt)

            try:
                if (rows.end - rows.start) * shape.data_shards > INLINE_WORK_BYTES_MAX:
                    await self._run_codec(work)
                else:
                    work()
            except errors.InsufficientShardsError as exc:
                # A locally repairable code may need other shards than the first k.
                if wanted_count == shape.shards_count:
                    raise self._insufficient(stripe, available) from exc
                wanted_count = shape.shards_count
                continue
            return

    async def _gather_shards(
        self,
        stripe: shard_rows.Stripe,
        rows: chunk_rows.Rows,
        available: dict[int, memoryview],
        wanted_count: int,
        without: Collection[int],
    ) -> None:
        """Read further shards until ``wanted_count`` verify or none is left to try.

        Raises:
            InsufficientShardsError: fewer than k verify.
        """
        shape = stripe.members.geometry
        while len(available) < wanted_count:
            untried = [
                index
                for index in range(shape.shards_count)
                if index not in available and index not in stripe.failed and index not in without
            ]
            chosen = untried[: wanted_count - len(available)]
            if not chosen:
                break
            found = await asyncio.gather(
                *(self._rows.read_rows(stripe, index, rows, None) for index in chosen)
            )
            for index, body in zip(chosen, found, strict=True):
                if body is not None:
                    available[index] = body
        if len(available) < shape.data_shards:
            raise self._insufficient(stripe, available)

    async def _gather_first(
        self,
        stripe: shard_rows.Stripe,
        rows: chunk_rows.Rows,
        available: dict[int, memoryview],
        without: Collection[int],
    ) -> None:
        """Ask all other shards and go on with the first that suffice: one slow device is seldom
        alone."""
        shape = stripe.members.geometry
        reads = {
            asyncio.create_task(self._rows.read_rows(stripe, index, rows, None)): index
            for index in range(shape.shards_count)
            if index not in available and index not in stripe.failed and index not in without
        }
        waiting = set(reads)
        try:
            while waiting and len(available) < shape.data_shards:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for read in ended:
                    body = read.result()
                    if body is not None:
                        available[reads[read]] = body
        finally:
            self._strays.leave(waiting)

    def _insufficient(
        self, stripe: shard_rows.Stripe, available: dict[int, memoryview]
    ) -> errors.InsufficientShardsError:
        location = stripe.location
        reasons = "; ".join(
            f"shard {index} on device {stripe.members.zones[index].device_id} {reason}"
            for index, reason in sorted(stripe.failed.items())
        )
        return errors.InsufficientShardsError(
            f"stripe {location.stripe_offset_bytes} of group {location.group_id} "
            f"({stripe.members.geometry}) cannot be read: "
            f"{len(available)} shards verify; {reasons}",
            group=location.group_id,
            offset=location.stripe_offset_bytes,
            failed_shards=tuple(sorted(stripe.failed)),
        )
