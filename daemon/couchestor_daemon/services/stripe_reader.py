"""Ranges of stripes, verified, decoded from other shards where a shard fails."""

from __future__ import annotations

from collections.abc import Callable

from couchestor_daemon.formats import shard
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    chunk_rows,
    hedged_reads,
    hedging,
    shard_rows,
    stray_reads,
    stripe_decoding,
)
from couchestor_domain import errors, event_publisher, events, ids

StripeLocation = shard_rows.StripeLocation
GroupMembers = shard_rows.GroupMembers


async def _run_inline(work: Callable[[], None]) -> None:
    work()


class StripeReader:
    """Reads through ``media``; every byte given out matched a checksum of its own shard or was
    decoded from shards that did.

    Args:
        codecs: Codec of a geometry and codec id.
        on_damage: Told (group, stripe offset, shard index, reason) once per failed shard per read,
            for the repair queue; must not block.
        run_codec: Runs decoding of large ranges, e.g. on the codec pool; inline by default.
        slow_reads: Bounds the wait for a device; without it reads wait as long as it takes.
    """

    def __init__(
        self,
        media: media_port.Media,
        *,
        codecs: stripe_decoding.Codecs,
        publisher: event_publisher.EventPublisher,
        on_damage: shard_rows.OnDamage,
        run_codec: stripe_decoding.RunCodec = _run_inline,
        slow_reads: hedging.Hedging | None = None,
    ) -> None:
        self._publisher = publisher
        self._rows = shard_rows.ShardRows(
            media, publisher=publisher, on_damage=on_damage, slow_reads=slow_reads
        )
        self._strays = stray_reads.StrayReads()
        self._decoder = stripe_decoding.StripeDecoder(
            self._rows, codecs=codecs, run_codec=run_codec, strays=self._strays
        )
        self._hedging = slow_reads
        self._hedged = (
            hedged_reads.HedgedReads(self._rows, self._decoder, slow_reads, self._strays)
            if slow_reads
            else None
        )

    async def read(
        self,
        location: StripeLocation,
        members: GroupMembers,
        start_bytes: int,
        length_bytes: int,
        out: memoryview,
        *,
        is_named: shard_rows.IsNamed = shard_rows.always_named,
    ) -> None:
        """Fill ``out`` with user bytes [start, start + length) of a stripe.

        ``out`` is writable and ``length_bytes`` long; after an error its content is undefined.

        Args:
            is_named: Whether the index still leads to the stripe on these members; asked when a
                shard fails. If not, its zones may have been given to others: that is no damage.

        Raises:
            InsufficientShardsError: fewer shards verify than the code needs.
            StripeNotFoundError: the range is not inside the stripe.
        """
        assert len(out) == length_bytes, (len(out), length_bytes)
        if not 0 <= start_bytes <= start_bytes + length_bytes <= location.data_bytes:
            raise errors.StripeNotFoundError(
                f"bytes {start_bytes} to {start_bytes + length_bytes} are not inside the "
                f"{location.data_bytes} bytes of stripe {location.stripe_offset_bytes} of group "
                f"{location.group_id}"
            )
        stripe = shard_rows.Stripe(location, members, is_named, {})
        everything = chunk_rows.wants(
            members.geometry,
            start_bytes,
            length_bytes,
            chunk_bytes=location.chunk_bytes,
            out=out,
        )
        wants = [want for want in everything if not self._rows.try_want(stripe, want)]
        if not wants:
            return
        patience = self._hedging.patience_seconds() if self._hedging else None
        if self._hedged is None or patience is None:
            await hedged_reads.read_wants(self._rows, stripe, wants)
        else:
            await self._hedged.read(stripe, wants, everything, patience)
        missing = [want for want in wants if not want.served]
        if missing:
            await self._decoder.decode(
                stripe, missing, [want for want in everything if want.served]
            )
        if stripe.reported:
            self._publisher.publish(
                events.DegradedRead(
                    group_id=ids.GroupId(location.group_id),
                    stripe_offset_bytes=location.stripe_offset_bytes,
                    missing_shards=tuple(sorted(stripe.failed)),
                )
            )

    async def read_shard_raw(
        self, location: StripeLocation, members: GroupMembers, shard_index: int, out: memoryview
    ) -> shard.ShardHeader:
        """See ``ShardRows.read_shard_raw``."""
        return await self._rows.read_shard_raw(location, members, shard_index, out)

    async def drain(self) -> None:
        """Wait for reads that were left alone because they took too long."""
        await self._strays.drain()
