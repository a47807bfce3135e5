"""Who of several operators acts: one candidate's part in an election by a Lease, without I/O.

Why two never act at once. A holder acts until ``act_seconds`` after it *sent* the last renewal that
was accepted, by a clock that also counts while the machine sleeps. Another candidate claims only

* over the version of the Lease that it has seen: a claim over an older one is refused, so it has
  seen the last accepted renewal;
* when, by its own such clock, it has seen that version unchanged for the whole ``lease_seconds``
  written in it: since it can only be seen after it was sent, that ends at least ``lease_seconds``
  after it was sent. A Lease that is not there is waited for as one that is: people may have deleted
  it under somebody who acts.

So between the end of the one's acting and the other's claim lie ``lease_seconds - act_seconds``,
less what the two clocks differ by over one lease. No wall clock is compared with another: the times
in the Lease are for people. The gap is for what was under way: a request that was cut off may still
be carried out. The safety of migrations rests on versions and not on the gap, which does not bound
how late a request can land.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

from couchestor_domain import errors

CLOCK_DRIFT_RATIO_MAX = 0.01
"""What two clocks may differ by over one lease; quartz is a hundred times better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long is what.

    Raises:
        ConfigurationError: the parts do not fit together.
    """

    lease_seconds: int = 15
    """Another candidate waits for so long; whole seconds, as the Lease has them."""
    act_seconds: float = 10.0
    """A holder acts for so long after it sent a renewal that was accepted."""
    renew_seconds: float = 2.0
    """Between renewals, and between looks at a Lease that another one holds."""

    def __post_init__(self) -> None:
        longest_seconds = self.lease_seconds * (1 - 2 * CLOCK_DRIFT_RATIO_MAX)
        if not 0 < self.renew_seconds < self.act_seconds <= longest_seconds:
            raise errors.ConfigurationError(
                f"an election needs 0 < renewal ({self.renew_seconds:g} s) < acting "
                f"({self.act_seconds:g} s) <= {longest_seconds:g} s, the length of the lease less "
                "what clocks may differ by: raise or lower one of them"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What stands in the Lease."""

    holder: str
    """Identity of whoever holds it; empty: nobody."""
    lease_seconds: int
    acquired_seconds: float
    """When the holder first held it, since the epoch by its clock; for people, as the next."""
    renewed_seconds: float
    transitions_count: int
    version: str = ""
    """Opaque; changes with every write. Empty: of a Lease that does not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Write this over the version that it names; where that is empty, make the Lease."""

    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Another one may act; look again."""

    seconds: float


Verdict: TypeAlias = Claim | Wait


class Candidate:
    """One operator's part.

    Args:
        identity: Unlike that of any other process, ever.
    """

    def __init__(self, identity: str, terms: Terms) -> None:
        assert identity
        self._identity = identity
        self._terms = terms
        self._held: Lease | None = None
        self._acts_until_seconds = float("-inf")
        self._seen_version: str | None = None
        self._seen_since_seconds = 0.0

    @property
    def acts_until_seconds(self) -> float:
        """By the clock that ``accepted`` was told of; in the past if nothing is held."""
        return self._acts_until_seconds

    def is_acting(self, now_seconds: float) -> bool:
        """Whether this one may act now."""
        return now_seconds < self._acts_until_seconds

    def renewal(self, *, wall_seconds: float) -> Claim | None:
        """The next renewal; None if nothing is known to be held, so that it has to be read."""
        if self._held is None:
            return None
        return Claim(lease=dataclasses.replace(self._held, renewed_seconds=wall_seconds))

    def seen(self, lease: Lease | None, *, now_seconds: float, wall_seconds: float) -> Verdict:
        """What to do about what was read.

        Args:
            now_seconds: By the clock that counts also while the machine sleeps, taken *after* the
                Lease was read.
            wall_seconds: Since the epoch, to be written down.
        """
        version = "" if lease is None else lease.version
        if version != self._seen_version:
            self._seen_version, self._seen_since_seconds = version, now_seconds
        if lease is not None and lease.holder == "":
            return self._claim(lease, wall_seconds=wall_seconds)
        if lease is not None and lease.holder == self._identity:
            # A claim that was accepted and not answered. Nobody has held it since.
            self._held = lease
            return Claim(lease=dataclasses.replace(lease, renewed_seconds=wall_seconds))
        self.lost()
        lease_seconds = self._terms.lease_seconds if lease is None else lease.lease_seconds
        left_seconds = self._seen_since_seconds + lease_seconds - now_seconds
        if left_seconds > 0:
            return Wait(seconds=min(left_seconds, self._terms.renew_seconds))
        return self._claim(lease, wall_seconds=wall_seconds)

    def accepted(self, lease: Lease, *, sent_at_seconds: float) -> None:
        """A claim or renewal was written.

        Args:
            lease: As it stands now, with its version.
            sent_at_seconds: By the same clock as ever, taken *before* it was sent.
        """
        self._held = lease
        self._seen_version, self._seen_since_seconds = lease.version, sent_at_seconds
        self._acts_until_seconds = sent_at_seconds + self._terms.act_seconds

    def refused(self) -> None:
        """It was not of that version any more: what is held has to be read. Acting ends in time."""
        self._held = None

    def lost(self) -> None:
        """Another one holds it."""
        self._held = None
        self._acts_until_seconds = float("-inf")

    def resignation(self, *, wall_seconds: float) -> Claim | None:
        """The Lease with no holder, to be written when nothing acts any more; None: not held."""
        held = self._held
        self.lost()
        if held is None:
            return None
        return Claim(lease=dataclasses.replace(held, holder="", renewed_seconds=wall_seconds))

    def _claim(self, over: Lease | None, *, wall_seconds: float) -> Claim:
        return Claim(
            lease=Lease(
                holder=self._identity,
                lease_seconds=self._terms.lease_seconds,
                acquired_seconds=wall_seconds,
                renewed_seconds=wall_seconds,
                transitions_count=0 if over is None else over.transitions_count + 1,
                version="" if over is None else over.version,
            )
        )
