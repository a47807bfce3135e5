"""All shards of one stripe in memory: read whole, verified, and rebuilt from one another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import group_walk, repair_tools
from couchestor_domain import errors, geometry


def memory_bytes(record: media_records.GroupRecord, found: group_walk.FoundStripe) -> int:
    """Memory that ``StripeShards`` wants for a stripe."""
    return shard.shard_bytes(found.location.chunk_bytes) * len(record.members)


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


class StripeShards:
    """The shards of a stripe of a group, as far as they are known.

    Args:
        memory: ``memory_bytes`` long, aligned; lent until the caller is done.
        places: Shards that are wanted elsewhere than in ``memory``, each a whole shard long.
        distrusted: Shards that are neither read nor decoded from.
        run_codec: Runs CPU-heavy work on the codec pool.
    """

    def __init__(
        self,
        media: media_port.Media,
        record: media_records.GroupRecord,
        found: group_walk.FoundStripe,
        *,
        memory: memoryview,
        places: Mapping[int, memoryview] | None = None,
        distrusted: Collection[int] = (),
        run_codec: repair_tools.RunBlocking,
        pace: repair_tools.Pace,
    ) -> None:
        self.found = found
        self.headers: dict[int, shard.ShardHeader] = {}
        """Of the shards that verified."""
        self._media = media
        self._record = record
        self._zones = media_records.zone_addresses(record.members)
        self._memory = memory
        self._places = places or {}
        self._run_codec = run_codec
        self._pace = pace
        self._untried = [i for i in range(len(self._zones)) if i not in distrusted]
        self._shard_bytes = shard.shard_bytes(found.location.chunk_bytes)
        self._header_bytes = shard.header_bytes(found.location.chunk_bytes)

    def shard(self, index: int) -> memoryview:
        """Header and chunk; whole once it verified or was rebuilt."""
        place = self._places.get(index)
        if place is not None:
            return place
        return self._memory[index * self._shard_bytes : (index + 1) * self._shard_bytes]

    def chunk(self, index: int) -> memoryview:
        """The chunk alone."""
        return self.shard(index)[self._header_bytes :]

    async def read(self, indexes: Iterable[int]) -> None:
        """Read shards that were not tried yet; ``headers`` tells afterwards which verified.

        A device that cannot be read costs the shard, no more.
        """
        chosen = [index for index in indexes if index in self._untried]
        if not chosen:
            return
        self._untried = [index for index in self._untried if index not in chosen]
        await self._pace(self._shard_bytes * len(chosen))
        offset = self.found.location.stripe_offset_bytes
        ended = await asyncio.gather(
            *(self._media.read(self._zones[index], offset, self.shard(index)) for index in chosen),
            return_exceptions=True,
        )
        arrived = []
        for index, outcome in zip(chosen, ended, strict=True):
            if outcome is None:
                arrived.append(index)
            elif not isinstance(outcome, errors.DeviceError):
                raise outcome
        await self._run_codec(self._verify, arrived)

    def _verify(self, indexes: Sequence[int]) -> None:
        for index in indexes:
            header = shard.unpack(self.shard(index)[: self._header_bytes])
            if (
                header is not None
                and is_shard_of(header, self._record, self.found, index)
                and shard.verify_blocks(header, 0, self.chunk(index))
            ):
                self.headers[index] = header

    async def rebuild(
        self,
        codec: codec_port.EcCodec,
        targets: Sequence[int],
    ) -> None:
        """Make the shards ``targets`` from those that verify, reading as many as that takes.

        Raises:
            InsufficientShardsError: too few verify.
        """
        wanted_count = self._record.data_shards
        while True:
            while len(self.headers) < wanted_count and self._untried:
                await self.read(self._untried[: wanted_count - len(self.headers)])
            if len(self.headers) < self._record.data_shards:
                raise self._insufficient()
            try:
                await self._run_codec(self._reconstruct, codec, targets)
            except errors.InsufficientShardsError as exc:
                # A locally repairable code may need other shards than the first k.
                if not self._untried:
                    raise self._insufficient() from exc
                wanted_count = len(self._zones)
                continue
            return

    def _reconstruct(self, codec: codec_port.EcCodec, targets: Sequence[int]) -> None:
        available: Mapping[int, memoryview] = {
            index: self.chunk(index) for index in sorted(self.headers)
        }
        codec.reconstruct(available, {index: self.chunk(index) for index in targets})
        pattern = next(iter(self.headers.values()))
        for index in targets:
            header = pattern._replace(
                shard_index=index, checksums=shard.checksums(self.chunk(index))
            )
            self.shard(index)[: self._header_bytes] = shard.pack(header)

    def parity_misfits(self, codec: codec_port.EcCodec, scratch: memoryview) -> list[int]:
        """Parity shards whose bytes are not what the data shards encode to. CPU only.

        All data shards must have verified.

        Args:
            scratch: m chunks long.
        """
        chunk_bytes = self.found.location.chunk_bytes
        parity = [
            scratch[index * chunk_bytes : (index + 1) * chunk_bytes]
            for index in range(self._record.parity_shards)
        ]
        codec.encode([self.chunk(index) for index in range(self._record.data_shards)], parity)
        return [
            index
            for index, encoded in enumerate(parity, self._record.data_shards)
            if index in self.headers and not shard.verify_blocks(self.headers[index], 0, encoded)
        ]

    def _insufficient(self) -> errors.InsufficientShardsError:
        location = self.found.location
        shape = geometry.StripeGeometry(self._record.data_shards, self._record.parity_shards)
        return errors.InsufficientShardsError(
            f"of the {shape} shards of stripe {location.stripe_offset_bytes} of group "
            f"{location.group_id} only {len(self.headers)} verify",
            group=location.group_id,
            offset=location.stripe_offset_bytes,
        )
