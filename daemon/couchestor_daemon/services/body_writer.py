"""From a request body to durable places: stripes while it arrives, the short rest for the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from couchestor_daemon import buffers
from couchestor_daemon.formats import l2p_record
from couchestor_daemon.services import byte_budget, stripe_assembly, stripe_groups, uninterrupted
from couchestor_domain import errors, ids, objects


class Body(Protocol):
    """A body as the gateway's ``BodySource`` port gives it."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def may_end_early(self) -> bool: ...

    async def readinto(self, *views: memoryview) -> int: ...

    async def finish(self) -> objects.BodyDigests: ...


@dataclass(slots=True, kw_only=True)
class WrittenBody:
    """A body that verified, with everything but its ``rest`` durable."""

    extent: ids.Extent
    digests: objects.BodyDigests
    locations: list[tuple[ids.ExtentAddress, l2p_record.Location]] = field(default_factory=list)
    places: list[stripe_groups.StripePlace] = field(default_factory=list)
    """Where its stripes are: unsettled, see ``BodyWriter.settle``."""
    rest_address: ids.ExtentAddress
    rest: bytearray = field(default_factory=bytearray)


class BodyWriter:
    """Cuts bodies into stripes.

    Args:
        stripe_bytes: User bytes of a full stripe.
        journal_threshold_bytes: A body or rest shorter than this goes to the log.
        in_flight_bytes_max: Memory of the stripes being filled or written at once; further bodies
            wait.
        lease_address: Gives a fresh logical range of the length asked for.
    """

    def __init__(
        self,
        *,
        groups: stripe_groups.StripeGroups,
        pool: buffers.BufferPool,
        stripe_bytes: int,
        journal_threshold_bytes: int,
        in_flight_bytes_max: int,
        lease_address: Callable[[int], Awaitable[ids.ExtentAddress]],
    ) -> None:
        self._groups = groups
        self._pool = pool
        self._stripe_bytes = stripe_bytes
        self._journal_threshold_bytes = journal_threshold_bytes
        self._lease_address = lease_address
        self._memory = byte_budget.ByteBudget(in_flight_bytes_max)

    async def write(self, body: Body) -> WrittenBody:
        """Consume and verify a whole body. Memory: one stripe, however long the body is.

        Nothing refers to what was written until the caller commits it, so an error or a
        cancellation leaves only unreferenced bytes behind. The caller owes what is returned to
        ``settle``, whatever becomes of its commit.
        """
        size = body.size_bytes
        address = await self._lease_address(size)
        written = WrittenBody(
            extent=ids.Extent(address, size),
            digests=objects.BodyDigests(etag=""),
            rest_address=address,
        )
        try:
            await self._write_into(written, body)
        except BaseException:
            self.settle(written)
            raise
        return written

    def settle(self, written: WrittenBody) -> None:
        """The commit of a body has ended or was given up. Once for each body, from the loop."""
        for place in written.places:
            self._groups.settle(place)

    async def _write_into(self, written: WrittenBody, body: Body) -> None:
        address, size = written.extent
        position = 0
        while size - position >= self._journal_threshold_bytes:
            step = min(self._stripe_bytes, size - position)
            needed = stripe_assembly.memory_bytes(self._groups.current_geometry(), step)
            async with self._memory.borrowed(needed):
                at = ids.ExtentAddress(address + position)
                stored_bytes = await self._write_stripe(written, body, at, step)
            position += stored_bytes
            if stored_bytes < step:
                size = position + len(written.rest)
                written.extent = ids.Extent(address, size)
        written.rest_address = ids.ExtentAddress(address + position)
        if len(written.rest) < size - position:
            written.rest = bytearray(size - position)
            filled = await self._fill(body, memoryview(written.rest))
            if filled < len(written.rest):
                del written.rest[filled:]
                written.extent = ids.Extent(address, position + filled)
        written.digests = await body.finish()

    async def _write_stripe(
        self, written: WrittenBody, body: Body, address: ids.ExtentAddress, data_bytes: int
    ) -> int:
        """Fill a stripe and store it.

        Returns:
            The bytes stored: fewer than ``data_bytes`` if the body ended early. What was too little
            for a stripe is the rest then.
        """
        stripe = stripe_assembly.StripeBuffer(
            self._pool, self._groups.current_geometry(), data_bytes
        )
        try:
            filled = await self._fill(body, *stripe.fill_views())
        except BaseException:
            stripe.release()
            raise
        if filled < data_bytes:
            if filled < self._journal_threshold_bytes:
                written.rest = bytearray(memoryview(b"".join(stripe.fill_views()))[:filled])
                stripe.release()
                return 0
            stripe = self._laid_out_again(stripe, filled)
        await uninterrupted.to_the_end(self._store(written, stripe, address))
        return filled

    async def _store(
        self,
        written: WrittenBody,
        stripe: stripe_assembly.StripeBuffer,
        address: ids.ExtentAddress,
    ) -> None:
        """Noted in ``written`` in here: a cancelled caller must still know what to settle."""
        data_bytes = stripe.data_bytes
        try:
            while True:
                try:
                    place = await self._groups.write_stripe(stripe, extent_address=address)
                except stripe_groups.GeometryChangedError:
                    stripe = self._laid_out_again(stripe, data_bytes)
                    continue
                written.places.append(place)
                location = l2p_record.StripeLocation(
                    *place, stripe.chunk_bytes, data_bytes, 0, data_bytes
                )
                written.locations.append((address, location))
                return
        finally:
            stripe.release()

    def _laid_out_again(
        self, old: stripe_assembly.StripeBuffer, data_bytes: int
    ) -> stripe_assembly.StripeBuffer:
        """The first bytes of a filled stripe in one of their own; the old one is released."""
        data = memoryview(b"".join(old.fill_views()))
        old.release()  # First: the memory of one stripe is what was borrowed.
        fresh = stripe_assembly.StripeBuffer(
            self._pool, self._groups.current_geometry(), data_bytes
        )
        position = 0
        for view in fresh.fill_views():
            view[:] = data[position : position + len(view)]
            position += len(view)
        return fresh

    @staticmethod
    async def _fill(body: Body, *views: memoryview) -> int:
        """How much the body gave: all that is asked for, unless it may end early."""
        filled = await body.readinto(*views)
        missing = sum(map(len, views)) - filled
        if missing and not body.may_end_early:
            raise errors.BodyTruncatedError(
                f"the body ended {missing} bytes before its announced length"
            )
        return filled
