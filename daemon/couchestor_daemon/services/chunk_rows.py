"""Which rows of which chunks hold a range of a stripe's data, and where they are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from couchestor_daemon.formats import shard
from couchestor_domain import geometry, units


class Rows(NamedTuple):
    """A block-aligned byte range of every chunk of a stripe."""

    start: int
    end: int


@dataclass(slots=True, eq=False)
class Want:
    """One chunk's part of a read."""

    index: int
    start: int
    target: memoryview
    rows: Rows
    served: bool = False
    """Whether ``target`` holds verified bytes."""

    def accept(self, body: memoryview) -> None:
        """Take the part that is wanted out of the verified bytes of ``rows``."""
        inside = self.start - self.rows.start
        self.target[:] = body[inside : inside + len(self.target)]
        self.served = True


def wants(
    shape: geometry.StripeGeometry,
    start_bytes: int,
    length_bytes: int,
    *,
    chunk_bytes: int,
    out: memoryview,
) -> list[Want]:
    """The parts of a read, one for each chunk touched, with their places in ``out``."""
    found = []
    position = 0
    for part in shape.chunk_ranges(
        chunk_bytes=chunk_bytes, start_bytes=start_bytes, length_bytes=length_bytes
    ):
        end = units.align_up(part.start_bytes + part.length_bytes, shard.CHECKSUM_BLOCK_BYTES)
        rows = Rows(
            units.align_down(part.start_bytes, shard.CHECKSUM_BLOCK_BYTES),
            min(end, chunk_bytes),
        )
        target = out[position : position + part.length_bytes]
        found.append(Want(part.shard_index, part.start_bytes, target, rows))
        position += part.length_bytes
    return found


def merged(ranges: Iterable[Rows]) -> list[Rows]:
    """Disjoint row ranges that cover all of ``ranges``, so that no row is decoded twice."""
    found: list[Rows] = []
    for rows in sorted(ranges):
        if found and rows.start < found[-1].end:
            found[-1] = Rows(found[-1].start, max(found[-1].end, rows.end))
        else:
            found.append(rows)
    return found


def whole_rows(wants: Iterable[Want], rows: Rows) -> dict[int, memoryview]:
    """Rows that lie in targets as they lie on media, by shard: they need not be read again."""
    found = {}
    for want in wants:
        inside = rows.start - want.start
        length = rows.end - rows.start
        if inside >= 0 and inside + length <= len(want.target):
            found[want.index] = want.target[inside : inside + length]
    return found
