"""The shards of stripes that lie together: a member's part of them is read in one go.

Verified stripe by stripe, and rebuilt from one another. One by one, small stripes would each wait
for reads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.services import group_walk, repair_tools
from couchestor_domain import errors, geometry, units

Stripes = Sequence[group_walk.FoundStripe]

PARITY_SLICE_BYTES: Final = 64 * units.KIB
"""Of a chunk, encoded in one go to be compared: with its parity it stays in a core's cache."""
assert PARITY_SLICE_BYTES % shard.CHECKSUM_BLOCK_BYTES == 0, PARITY_SLICE_BYTES


def end_bytes_of(found: group_walk.FoundStripe) -> int:
    """Offset behind a stripe's shards."""
    location = found.location
    return location.stripe_offset_bytes + shard.shard_bytes(location.chunk_bytes)


def length_bytes(stripes: Stripes) -> int:
    """Bytes from the first stripe's shard to the end of the last one's."""
    return end_bytes_of(stripes[-1]) - stripes[0].location.stripe_offset_bytes


def scratch_bytes(stripes: Stripes, record: media_records.GroupRecord) -> int:
    """Memory that ``RunShards.parity_misfits`` wants."""
    longest = max(found.location.chunk_bytes for found in stripes)
    return min(longest, PARITY_SLICE_BYTES) * record.parity_shards


def is_shard_of(
    header: shard.ShardHeader,
    record: media_records.GroupRecord,
    found: group_walk.FoundStripe,
    index: int,
) -> bool:
    """Whether a verified header is that of shard ``index`` of just this stripe."""
    location = found.location
    return (
        header.group_id == record.group_id
        and header.stripe_offset_bytes == location.stripe_offset_bytes
        and header.shard_index == index
        and header.chunk_bytes == location.chunk_bytes
        and header.data_bytes == location.data_bytes
        and header.extent_address == found.extent_address
        and header.data_shards == record.data_shards
        and header.parity_shards == record.parity_shards
        and header.codec_id == record.codec_id
    )


class RunShards:
    """The shards of some stripes of a group, as far as they are known.

    Args:
        stripes: Without a gap between them.
        memory: ``length_bytes`` for each member, aligned; lent until the caller is done.
        absent: Members that are not to be read.
        distrusted: (stripe offset, shard index) of shards that are never taken for whole.
        turns: A lock for each member, shared by runs under way at the same time: a member is read
            from its start to its end, one read after the other, as read-ahead below expects it.
        past_cache: Read what is on the medium, whatever the caches before it hold.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        stripes: Stripes,
        *,
        memory: memoryview,
        absent: Collection[int] = (),
        distrusted: Collection[tuple[int, int]] = (),
        turns: Sequence[asyncio.Lock] = (),
        past_cache: bool = False,
    ) -> None:
        self.stripes = stripes
        self.headers: list[dict[int, shard.ShardHeader]] = [{} for _ in stripes]
        """For each stripe the headers of the shards that verified."""
        self._tools = tools
        self._record = record
        self._zones = media_records.zone_addresses(record.members)
        self._start_bytes = stripes[0].location.stripe_offset_bytes
        self._length_bytes = length_bytes(stripes)
        self._memory = memory
        self._aside: dict[int, memoryview] = {}
        """Parts of members whose place in ``memory`` cannot be used any more."""
        self._distrusted = distrusted
        self._turns = turns
        self._past_cache = past_cache
        self._untried = [index for index in range(len(self._zones)) if index not in absent]
        self._read_already: set[int] = set()

    def piece(self, index: int) -> memoryview:
        """A member's part of all stripes."""
        aside = self._aside.get(index)
        if aside is not None:
            return aside
        return self._memory[index * self._length_bytes : (index + 1) * self._length_bytes]

    def shard(self, number: int, index: int) -> memoryview:
        """Header and chunk of stripe ``number``; whole once it verified or was rebuilt."""
        found = self.stripes[number]
        start = found.location.stripe_offset_bytes - self._start_bytes
        return self.piece(index)[start : end_bytes_of(found) - self._start_bytes]

    def chunk(self, number: int, index: int) -> memoryview:
        """The chunk alone."""
        chunk_bytes = self.stripes[number].location.chunk_bytes
        return self.shard(number, index)[shard.header_bytes(chunk_bytes) :]

    # -- reading --------------------------------------------------------------------------------

    def has_been_read(self, index: int) -> None:
        """The ``piece`` of a member was filled from elsewhere: it needs no read of its own."""
        self._read_already.add(index)

    async def read(self, indexes: Iterable[int]) -> None:
        """Read members that were not tried yet; ``headers`` tells afterwards what verified."""
        chosen = await self.fetch(indexes)
        if chosen:
            await self._tools.run_codec(self.verify, chosen)

    async def fetch(self, indexes: Iterable[int]) -> list[int]:
        """Read members that were not tried yet, for ``verify``; which they were.

        What a device cannot read costs the shards concerned, no more.
        """
        chosen = [index for index in indexes if index in self._untried]
        if not chosen:
            return []
        self._untried = [index for index in self._untried if index not in chosen]
        await self._tools.pace(self._length_bytes * len(chosen))
        wanted = [index for index in chosen if index not in self._read_already]
        ended = await asyncio.gather(
            *(self._read_in_turn(index) for index in wanted), return_exceptions=True
        )
        for index, outcome in zip(wanted, ended, strict=True):
            if isinstance(outcome, errors.DeviceStalledError):
                # The device may fill the member's place yet, when another shard is made there.
                self._aside[index] = memoryview(mmap.mmap(-1, self._length_bytes))
            elif isinstance(outcome, errors.DeviceError):
                await self._read_apart(index)
            elif outcome is not None:
                raise outcome
        return chosen

    async def _read_in_turn(self, index: int) -> None:
        async with self._turns[index] if self._turns else contextlib.nullcontext():
            await self._read_piece(index, self._start_bytes, self.piece(index), in_place=True)

    async def _read_piece(
        self, index: int, offset_bytes: int, view: memoryview, *, in_place: bool = False
    ) -> None:
        await self._tools.media.read(
            self._zones[index], offset_bytes, view, past_cache=self._past_cache, in_place=in_place
        )

    async def _read_apart(self, index: int) -> None:
        """Stripe by stripe, so that one bad place does not hide the others."""
        for number, found in enumerate(self.stripes):
            view = self.shard(number, index)
            try:
                if len(self.stripes) == 1:
                    raise errors.DeviceIoError("it was just tried")
                await self._read_piece(index, found.location.stripe_offset_bytes, view)
            except errors.DeviceError:
                # What the memory held before may verify.
                view[:] = bytes(len(view))

    def verify(self, indexes: Sequence[int]) -> None:
        """Note in ``headers`` what verifies of members that were fetched. CPU only."""
        for number, found in enumerate(self.stripes):
            header_bytes = shard.header_bytes(found.location.chunk_bytes)
            offset = found.location.stripe_offset_bytes
            for index in indexes:
                if (offset, index) in self._distrusted:
                    continue
                whole = self.shard(number, index)
                header = shard.unpack(whole[:header_bytes])
                if (
                    header is not None
                    and is_shard_of(header, self._record, found, index)
                    and shard.verify_blocks(header, 0, whole[header_bytes:])
                ):
                    self.headers[number][index] = header

    # -- rebuilding -----------------------------------------------------------------------------

    async def rebuild(
        self, codec: codec_port.EcCodec, targets: Collection[int], *, first: Sequence[int]
    ) -> list[int]:
        """Make the shards ``targets`` of every stripe, reading as many others as that takes.

        Args:
            first: Members that are read at once, before any others.

        Returns:
            Numbers of the stripes of which too few shards verify; their targets are undefined.
        """
        left: list[int] = list(range(len(self.stripes)))
        chosen = await self.fetch(first)
        while True:
            left = await self._tools.run_codec(self._make, codec, targets, chosen, left)
            if not left or not self._untried:
                return left
            lacking = max(self._record.data_shards - len(self.headers[number]) for number in left)
            # A locally repairable code may need other shards than the first k.
            chosen = await self.fetch(self._untried[:lacking] if lacking > 0 else self._untried)

    def _make(
        self,
        codec: codec_port.EcCodec,
        targets: Collection[int],
        fetched: Sequence[int],
        numbers: Sequence[int],
    ) -> list[int]:
        """Verify what was fetched, and make what can be made of that; which stripes are left. One
        hop to a thread for both."""
        self.verify(fetched)
        failed = []
        for number in numbers:
            headers = self.headers[number]
            missing = [index for index in targets if index not in headers]
            if not missing:
                continue
            if len(headers) < self._record.data_shards:
                failed.append(number)
                continue
            available = {index: self.chunk(number, index) for index in sorted(headers)}
            try:
                codec.reconstruct(
                    available, {index: self.chunk(number, index) for index in missing}
                )
            except errors.InsufficientShardsError:
                failed.append(number)
                continue
            pattern = next(iter(headers.values()))
            for index in missing:
                header = pattern._replace(
                    shard_index=index, checksums=shard.checksums(self.chunk(number, index))
                )
                packed = shard.pack(header)
                self.shard(number, index)[: len(packed)] = packed
        return failed

    def insufficient(self, number: int) -> errors.InsufficientShardsError:
        """Why a stripe cannot be rebuilt."""
        location = self.stripes[number].location
        shape = geometry.StripeGeometry(self._record.data_shards, self._record.parity_shards)
        return errors.InsufficientShardsError(
            f"of the {shape} shards of stripe {location.stripe_offset_bytes} of group "
            f"{location.group_id} only {len(self.headers[number])} verify",
            group=location.group_id,
            offset=location.stripe_offset_bytes,
        )

    # -- parity ---------------------------------------------------------------------------------

    def parity_misfits(
        self, codec: codec_port.EcCodec, scratch: memoryview
    ) -> list[tuple[int, int]]:
        """(stripe number, shard index) of parity that verifies and is not what the data shards
        encode to; of stripes whose data shards all verified. CPU only.

        Args:
            scratch: ``scratch_bytes`` long.
        """
        data_shards = self._record.data_shards
        wrong = []
        for number, headers in enumerate(self.headers):
            if any(index not in headers for index in range(data_shards)):
                continue
            fits = [index for index in headers if index >= data_shards]
            for start in range(0, self.stripes[number].location.chunk_bytes, PARITY_SLICE_BYTES):
                parity = self._encoded(codec, number, start, scratch)
                first_block = start // shard.CHECKSUM_BLOCK_BYTES
                fits = [
                    index
                    for index in fits
                    if shard.verify_blocks(headers[index], first_block, parity[index - data_shards])
                ]
                if not fits:
                    break
            wrong += [
                (number, index)
                for index in sorted(headers)
                if index >= data_shards and index not in fits
            ]
        return wrong

    def _encoded(
        self, codec: codec_port.EcCodec, number: int, start: int, scratch: memoryview
    ) -> list[memoryview]:
        """The parity of a slice of each data chunk, which is the slice of the parity."""
        data = [
            self.chunk(number, index)[start : start + PARITY_SLICE_BYTES]
            for index in range(self._record.data_shards)
        ]
        length = len(data[0])
        parity = [
            scratch[index * length : (index + 1) * length]
            for index in range(self._record.parity_shards)
        ]
        codec.encode(data, parity)
        return parity
