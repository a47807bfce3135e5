"""Ranges of extents that were resolved as a whole."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import l2p_record
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import ids

FIRST = 1 << 20


@hypothesis.given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    cuts=st.tuples(*[st.floats(0, 1)] * 2),
)
def test_a_part_of_what_was_resolved_is_what_the_index_resolves(
    lengths: list[int], cuts: tuple[float, float]
) -> None:
    index = memory_index.MemoryIndex()
    total = sum(lengths)
    with index.write() as txn:
        position = FIRST
        for number, length in enumerate(lengths):
            location = l2p_record.StripeLocation(number, 0, 4096, length, 0, length)
            l2p.insert(txn, ids.ExtentAddress(position), location)
            position += length
        txn.commit()
    extent = ids.Extent(ids.ExtentAddress(FIRST), total)
    start, end = sorted(int(cut * total) for cut in cuts)
    with index.read() as reader:
        whole = l2p.resolve(reader, extent, start_bytes=0, length_bytes=total)
        part = l2p.resolve(reader, extent, start_bytes=start, length_bytes=end - start)
    assert l2p.narrowed(whole, extent, start_bytes=start, length_bytes=end - start) == part
