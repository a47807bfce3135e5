from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import units


@given(st.integers(0, 1 << 60), st.integers(0, 30).map(lambda bits: 1 << bits))
def test_alignment_brackets_the_value(value: int, alignment: int) -> None:
    up, down = units.align_up(value, alignment), units.align_down(value, alignment)
    assert down <= value <= up
    assert up % alignment == down % alignment == 0
    assert up - down in (0, alignment)


@given(st.integers(0, 1 << 60), st.integers(1, 1 << 20))
def test_ceil_div(value: int, divisor: int) -> None:
    found = units.ceil_div(value, divisor)
    assert (found - 1) * divisor < value <= found * divisor or value == found == 0
