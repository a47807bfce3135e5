"""The token bucket over drawn times: never too many, and no fewer than there may be."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from couchestor_domain import request_rates, units

RATES = st.builds(request_rates.Rate, st.integers(1, 5_000), st.integers(1, 50))
PAUSES = st.lists(
    st.just(0) | st.integers(0, 10_000_000) | st.integers(0, 3 * units.NS_PER_SECOND), max_size=120
)


def _granted(
    rate: request_rates.Rate, pauses_ns: list[int], *, full_ns: int, now_ns: int
) -> list[int]:
    """When requests after each pause were granted."""
    found = []
    for pause_ns in pauses_ns:
        now_ns += pause_ns
        decision = request_rates.decide(rate, full_ns=full_ns, now_ns=now_ns)
        if decision.wait_ns == 0:
            full_ns = decision.full_ns
            found.append(now_ns)
    return found


@hypothesis.given(RATES, PAUSES, st.integers(0, 2**62), st.integers(0, 2**62))
def test_never_more_than_rate_times_time_and_burst(
    rate: request_rates.Rate, pauses_ns: list[int], full_ns: int, now_ns: int
) -> None:
    """Over every stretch of time, whatever the bucket held before."""
    times = _granted(rate, pauses_ns, full_ns=full_ns, now_ns=now_ns)
    for first, begin_ns in enumerate(times):
        for last in range(first, len(times)):
            elapsed_ns = times[last] - begin_ns
            # In integers: granted <= rate * t + burst.
            most = rate.per_second * elapsed_ns // units.NS_PER_SECOND + rate.burst
            assert last - first + 1 <= most


@hypothesis.given(RATES, st.integers(0, 2**62), st.integers(0, 2**62))
def test_whoever_waits_as_told_is_granted(
    rate: request_rates.Rate, full_ns: int, now_ns: int
) -> None:
    decision = request_rates.decide(rate, full_ns=full_ns, now_ns=now_ns)
    # Also where the bucket was another limit's, which may have been far slower.
    assert 0 <= decision.wait_ns <= rate.interval_ns
    if decision.wait_ns:
        kept_ns = min(full_ns, now_ns + rate.burst * rate.interval_ns)
        early = request_rates.decide(rate, full_ns=kept_ns, now_ns=now_ns + decision.wait_ns - 1)
        in_time = request_rates.decide(rate, full_ns=kept_ns, now_ns=now_ns + decision.wait_ns)
        assert (early.wait_ns, in_time.wait_ns) == (1, 0)


@hypothesis.given(RATES, st.integers(1, 20))
def test_who_always_asks_gets_the_rate(rate: request_rates.Rate, seconds: int) -> None:
    times = _granted(
        rate,
        [0] * rate.burst + [rate.interval_ns] * min(rate.per_second * seconds, 200),
        full_ns=0,
        now_ns=10**18,
    )
    assert len(times) == rate.burst + min(rate.per_second * seconds, 200)
