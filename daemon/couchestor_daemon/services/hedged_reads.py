"""Chunks of a stripe read at once, without waiting for a device that takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from couchestor_daemon.services import (
    chunk_rows,
    hedging,
    shard_rows,
    stray_reads,
    stripe_decoding,
)
from couchestor_domain import errors, ids


class HedgedReads:
    """Reads that decode from other shards what a slow device does not give in time."""

    def __init__(
        self,
        rows: shard_rows.ShardRows,
        decoder: stripe_decoding.StripeDecoder,
        policy: hedging.Hedging,
        strays: stray_reads.StrayReads,
    ) -> None:
        self._rows = rows
        self._decoder = decoder
        self._hedging = policy
        self._strays = strays

    async def read(
        self,
        stripe: shard_rows.Stripe,
        wants: Sequence[chunk_rows.Want],
        everything: Sequence[chunk_rows.Want],
        patience_seconds: float,
    ) -> None:
        """As ``read_wants``, but what takes longer than ``patience_seconds`` is decoded from other
        shards if those come first.

        Everything is read into memory of its own: a thread may still be writing there when the
        caller has long had its bytes.
        """
        devices = [zone.device_id for zone in stripe.members.zones]
        shunned = {
            index for index, device in enumerate(devices) if self._hedging.is_avoided(device)
        }
        if len(shunned | stripe.failed.keys()) > stripe.members.geometry.parity_shards:
            shunned = set()
        avoided = [want for want in wants if want.index in shunned]
        reads = {
            asyncio.create_task(self._rows.read_rows(stripe, want.index, want.rows, None)): want
            for want in wants
            if want not in avoided
        }
        waiting = set(reads)
        decoding: asyncio.Task[list[tuple[chunk_rows.Want, memoryview]]] | None = None
        try:
            if waiting:
                waiting = await _accept_ended(reads, waiting, timeout_seconds=patience_seconds)
            slow = [*(reads[read] for read in waiting), *avoided]
            can_decode = len(slow) + len(stripe.failed) <= stripe.members.geometry.parity_shards
            if slow and can_decode and (not waiting or self._hedging.take()):
                decoding = asyncio.create_task(
                    self._decoder.decoded_apart(stripe, wants, everything, shunned)
                )
                while waiting and not decoding.done():
                    waiting = await _accept_ended(reads, waiting, beside=decoding)
                if any(not want.served for want in wants):
                    await self._take_decoded(
                        decoding, [devices[reads[each].index] for each in waiting]
                    )
            if waiting and any(not want.served for want in wants):
                while waiting:
                    waiting = await _accept_ended(reads, waiting)
            late = [want for want in avoided if not want.served]
            if late:
                await read_wants(self._rows, stripe, late)
        finally:
            self._strays.leave(waiting)
            if decoding is not None:
                self._strays.leave({decoding})

    async def _take_decoded(
        self,
        decoding: asyncio.Task[list[tuple[chunk_rows.Want, memoryview]]],
        beaten: Sequence[ids.DeviceId],
    ) -> None:
        """Serve from other shards what was not read by now; nothing when they do not suffice.

        Args:
            beaten: Devices that have not answered yet.
        """
        try:
            decoded = await decoding
        except errors.InsufficientShardsError:
            return
        for want, body in decoded:
            if not want.served:
                want.accept(body)
        for device_id in beaten:
            self._hedging.lost(device_id)
        if beaten:
            self._hedging.won()


async def read_wants(
    rows: shard_rows.ShardRows, stripe: shard_rows.Stripe, wants: Sequence[chunk_rows.Want]
) -> None:
    """Read chunks, however long that takes; a want whose shard failed is left unserved."""
    if len(wants) == 1:
        await _read_want(rows, stripe, wants[0])
        return
    ended = await asyncio.gather(
        *(_read_want(rows, stripe, want) for want in wants), return_exceptions=True
    )
    for outcome in ended:
        # Raised only now, so that nothing still writes into what the caller gave.
        if isinstance(outcome, BaseException):
            raise outcome


async def _read_want(
    rows: shard_rows.ShardRows, stripe: shard_rows.Stripe, want: chunk_rows.Want
) -> None:
    exact = want.start == want.rows.start and want.rows.end - want.rows.start == len(want.target)
    found = await rows.read_rows(stripe, want.index, want.rows, want.target if exact else None)
    if found is None:
        return
    if exact:
        want.served = True
    else:
        want.accept(found)


async def _accept_ended(
    reads: Mapping[asyncio.Task[memoryview | None], chunk_rows.Want],
    waiting: Collection[asyncio.Task[memoryview | None]],
    *,
    timeout_seconds: float | None = None,
    beside: asyncio.Future[Any] | None = None,
) -> set[asyncio.Task[memoryview | None]]:
    """Wait for reads, serve what those that ended found, and return the others.

    Args:
        timeout_seconds: Wait for all of them, but no longer; without it, for the first.
        beside: Something else whose end is waited for as well.
    """
    ended, _ = await asyncio.wait(
        [*waiting, *([beside] if beside is not None else [])],
        timeout=timeout_seconds,
        return_when=asyncio.ALL_COMPLETED
        if timeout_seconds is not None
        else asyncio.FIRST_COMPLETED,
    )
    left = set(waiting)
    for read in waiting:
        if read in ended:
            left.discard(read)
            body = read.result()
            if body is not None:
                reads[read].accept(body)
    return left
