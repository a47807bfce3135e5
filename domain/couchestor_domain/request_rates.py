"""Limits on the rate of requests: a token bucket, as one number that any process may keep.

The number is the time at which the bucket is full again. It moves one interval on with each
request that is granted, and a request is granted while it is less than the burst ahead of now. Over
any time t no more than rate * t + burst are granted.

Source: ITU-T I.371, "Generic cell rate algorithm", virtual scheduling.
"""

from __future__ import annotations

from typing import NamedTuple

from couchestor_domain import units


class Rate(NamedTuple):
    """A limit."""

    per_second: int
    """At least 1."""
    burst: int
    """Requests at once after a pause; at least 1."""

    @property
    def interval_ns(self) -> int:
        """Between two requests in the long run; rounded so that never more are granted."""
        return units.ceil_div(units.NS_PER_SECOND, self.per_second)


class Decision(NamedTuple):
    """What becomes of one request."""

    full_ns: int
    """When the bucket is full again, if the request is granted."""
    wait_ns: int
    """How long until one is granted; 0: now."""


def decide(rate: Rate, *, full_ns: int, now_ns: int) -> Decision:
    """Judge a request.

    Args:
        full_ns: When the bucket is full again; what another limit has left there is taken for an
            empty bucket at most.
        now_ns: On the same clock, which never goes back.
    """
    interval_ns = rate.interval_ns
    empty_ns = now_ns + rate.burst * interval_ns
    begin_ns = min(max(full_ns, now_ns), empty_ns)
    following_ns = begin_ns + interval_ns
    return Decision(following_ns, max(following_ns - empty_ns, 0))
