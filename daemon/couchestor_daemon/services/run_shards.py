"""The shards of stripes that lie together: a member's part of them is read in one go.

Verified stripe by stripe, and rebuilt from one another. One by one, small stripes would each wait
for reads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.services import group_walk, repair_tools
from couchestor_domain import errors, geometry

Stripes = Sequence[group_walk.FoundStripe]


def end_bytes_of(found: group_walk.FoundStripe) -> int:
    """Offset behind a stripe's shards."""
    location = found.location
    return location.stripe_offset_bytes + shard.shard_bytes(location.chunk_bytes)


def length_bytes(stripes: Stripes) -> int:
    """Bytes from the first stripe's shard to the end of the last one's."""
    return end_bytes_of(stripes[-1]) - stripes[0].location.stripe_offset_bytes


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
        places: Members whose part is wanted elsewhere than in ``memory``.
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
        places: Mapping[int, memoryview] | None = None,
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
        self._places = places or {}
        self._distrusted = distrusted
        self._turns = turns
        self._past_cache = past_cache
        self._untried = list(range(len(self._zones)))

    def piece(self, index: int) -> memoryview:
        """A member's part of all stripes."""
        place = self._places.get(index)
        if place is not None:
            return place
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
        ended = await asyncio.gather(
            *(self._read_in_turn(index) for index in chosen), return_exceptions=True
        )
        for index, outcome in zip(chosen, ended, strict=True):
            if isinstance(outcome, errors.DeviceError):
                await self._read_apart(index)
            elif outcome is not None:
                raise outcome
        return chosen

    async def _read_in_turn(self, index: int) -> None:
        async with self._turns[index] if self._turns else contextlib.nullcontext():
            await self._read_piece(index, self._start_bytes, self.piece(index))

    async def _read_piece(self, index: int, offset_bytes: int, view: memoryview) -> None:
        await self._tools.media.read(
            self._zones[index], offset_bytes, view, past_cache=self._past_cache
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

    async def rebuild(self, codec: codec_port.EcCodec, targets: Collection[int]) -> list[int]:
        """Make the shards ``targets`` of every stripe, reading as many others as that takes.

        Returns:
            Numbers of the stripes of which too few shards verify; their targets are undefined.
        """
        left = [
            number
            for number, headers in enumerate(self.headers)
            if not headers.keys() >= {*targets}
        ]
        data_shards = self._record.data_shards
        while left:
            lacking = max(data_shards - len(self.headers[number]) for number in left)
            if lacking > 0 and self._untried:
                await self.read(self._untried[:lacking])
                continue
            enough = [number for number in left if len(self.headers[number]) >= data_shards]
            failed = await self._tools.run_codec(self._reconstruct, codec, targets, enough)
            left = [number for number in left if number not in enough or number in failed]
            if not left or not self._untried:
                break
            # A locally repairable code may need other shards than the first k.
            await self.read(self._untried)
        return left

    def _reconstruct(
        self, codec: codec_port.EcCodec, targets: Collection[int], numbers: Sequence[int]
    ) -> list[int]:
        failed = []
        for number in numbers:
            headers = self.headers[number]
            missing = [index for index in targets if index not in headers]
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

    def scratch_bytes(self) -> int:
        """What ``parity_misfits`` wants."""
        longest = max(found.location.chunk_bytes for found in self.stripes)
        return longest * self._record.parity_shards

    def parity_misfits(
        self, codec: codec_port.EcCodec, scratch: memoryview
    ) -> list[tuple[int, int]]:
        """(stripe number, shard index) of parity that verifies and is not what the data shards
        encode to; of stripes whose data shards all verified. CPU only.
        """
        k, m = self._record.data_shards, self._record.parity_shards
        wrong = []
        for number, found in enumerate(self.stripes):
            headers = self.headers[number]
            if any(index not in headers for index in range(k)):
                continue
            chunk_bytes = found.location.chunk_bytes
            parity = [scratch[i * chunk_bytes : (i + 1) * chunk_bytes] for i in range(m)]
            codec.encode([self.chunk(number, index) for index in range(k)], parity)
            wrong += [
                (number, index)
                for index, encoded in enumerate(parity, k)
                if index in headers and not shard.verify_blocks(headers[index], 0, encoded)
            ]
        return wrong
