"""What to know before believing the figures of a run, in sentences."""

from __future__ import annotations

from typing import Final, NamedTuple

BUSY_SHARE: Final = 0.9
"""From here on a CPU, or all of them, count as what bounds the run."""
LATE_MS: Final = 1.0
_FEW_BEYOND: Final = 10
_OTHERS_CPUS: Final = 0.3


class Facts(NamedTuple):
    """What is judged."""

    generator_cpus: list[float]
    machine_busy: float | None
    server_cpus: float | None
    cpu_count: int
    is_local: bool
    is_open: bool
    lag_p99_ms: float
    good_count: int
    error_count: int
    missed_count: int
    waited_count: int
    ran_out: bool
    hopeless: str
    seconds: float
    wanted_seconds: float


def bound(facts: Facts) -> str:
    """``generator``: a process of it had no more CPU to use; ``machine``: nothing had; or empty."""
    if max(facts.generator_cpus, default=0.0) >= BUSY_SHARE:
        return "generator"
    busy = facts.machine_busy or 0.0
    return "machine" if facts.is_local and busy >= BUSY_SHARE else ""


def sentences(facts: Facts) -> list[str]:
    """The gravest first; nothing when there is nothing to say."""
    found: list[str] = []
    if facts.hopeless:
        found.append(
            f"Given up: every request failed with {facts.hopeless}. The figures are of no server."
        )
    if facts.missed_count:
        found.append(
            f"The server did not keep up: {facts.missed_count:,} requests were due and never sent. "
            "Latencies grow with the length of the run then; lower --rate."
        )
    if bound(facts) == "generator":
        busiest = max(facts.generator_cpus)
        found.append(
            f"The load generator is the bound: a process of it used {busiest:.0%} of a CPU. The "
            "server may be faster than this; give the generator more --processes, or a machine."
        )
    if bound(facts) == "machine":
        found.append(_shared(facts))
    if facts.is_open and facts.lag_p99_ms >= LATE_MS:
        found.append(
            f"The load generator itself was late by {facts.lag_p99_ms:.1f} ms and more for one "
            "request in a hundred; that is part of the latencies."
        )
    if facts.is_open and facts.waited_count > 0.01 * max(1, facts.good_count):
        found.append(
            f"{facts.waited_count:,} requests were due while all connections were busy. They "
            "waited, which is part of their latency; with more --connections the server sees them "
            "sooner."
        )
    # Those that were never sent stand above.
    if failed_count := facts.error_count - facts.missed_count:
        share = failed_count / (failed_count + facts.good_count)
        found.append(
            f"{failed_count:,} requests failed ({share:.2%}); percentiles are of the others."
        )
    if facts.ran_out:
        found.append(
            f"Nothing was left to do after {facts.seconds:.1f} of {facts.wanted_seconds:g} "
            "seconds: more --objects make a longer run."
        )
    if 0 < facts.good_count < _FEW_BEYOND * 100:
        found.append(
            f"Only {facts.good_count:,} requests: less than ten lie above p99, so it is chance."
        )
    return found


def _shared(facts: Facts) -> str:
    """Who had the CPUs of a machine that had none left."""
    took = sum(facts.generator_cpus)
    parts = [f"the load generator had {took:.2f}"]
    others = ""
    if facts.server_cpus is not None:
        parts.insert(0, f"the server had {facts.server_cpus:.2f}")
        rest = (facts.machine_busy or 0.0) * facts.cpu_count - took - facts.server_cpus
        if rest >= _OTHERS_CPUS:
            parts.append(f"the kernel and other programs had {rest:.2f}")
            others = " and without them"
    return (
        f"The CPUs of this machine were {facts.machine_busy:.0%} busy. Of {facts.cpu_count} "
        f"{', '.join(parts)}: with a machine of its own{others} the server does more."
    )
