"""Which of the batches on media were committed."""

from __future__ import annotations

import pytest

from couchestor_daemon.formats import zone_header
from couchestor_daemon.services import log_scan
from couchestor_domain import errors, ids

MEMBERS = tuple(ids.ZoneAddress(ids.DeviceId(f"{n:032x}"), ids.ZoneIndex(0)) for n in range(3))
HEADER = zone_header.ZoneHeader(zone_header.ZoneRole.SEGMENT, 0, 0, 0, 1, 2, MEMBERS)


def batch(sequence: int, previous: int, *, copies: int = 3) -> log_scan.FoundBatch:
    return log_scan.FoundBatch(
        sequence=sequence,
        previous=previous,
        segment=HEADER,
        offset_bytes=4096,
        total_bytes=4096,
        valid_on=MEMBERS[:copies],
    )


def chain(base: int, *found: log_scan.FoundBatch) -> list[int]:
    return [item.sequence for item in log_scan.committed_chain(base, found)]


def test_the_highest_of_those_with_one_predecessor_was_committed() -> None:
    assert chain(0, batch(1, 0), batch(2, 1, copies=1), batch(3, 1), batch(5, 3)) == [1, 3, 5]


def test_what_follows_a_replaced_batch_is_void_and_no_gap() -> None:
    found = [batch(1, 0), batch(2, 1), batch(3, 2, copies=1), batch(90, 1), batch(91, 90)]
    assert chain(0, *found) == [1, 90, 91]
    assert chain(1, *found) == [90, 91]


def test_a_missing_predecessor_beyond_the_end_is_a_gap() -> None:
    with pytest.raises(errors.LogDamagedError, match="a gap after sequence 2: batch 4"):
        chain(0, batch(1, 0), batch(2, 1), batch(5, 4))
    # One that was never answered stands where the missing one was.
    with pytest.raises(errors.LogDamagedError, match="a gap after sequence 3: batch 4"):
        chain(0, batch(1, 0), batch(3, 1, copies=1), batch(5, 4))


def test_a_whole_batch_on_a_branch_the_log_has_left_is_not_passed_over() -> None:
    with pytest.raises(errors.LogDamagedError, match="batch 3 was committed after batch 2, which"):
        chain(0, batch(1, 0), batch(2, 1), batch(3, 2), batch(90, 1))


def test_a_base_that_the_log_has_left_is_refused() -> None:
    with pytest.raises(errors.LogDamagedError, match="sequence 2 is not part of its history"):
        chain(2, batch(90, 1), batch(91, 90))
    assert chain(2, batch(1, 0), batch(2, 1), batch(3, 2)) == [3]
    assert chain(2) == []
