"""A run from its bucket to its document."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import psutil

from couchestor_bench import failures, results
from couchestor_bench.engine import bucket, fleet, generator, recorder, server_usage
from couchestor_bench.reports import document, tally, verdicts
from couchestor_bench.workload import plan as plans
from couchestor_daemon.app import version

_SAMPLE_SECONDS: Final = 0.5
FILLED: Final = ("get", "head", "list", "delete")


class Audience(Protocol):
    """Who is told how it goes."""

    def phase(self, text: str) -> None:
        """Something begins that may take a while."""
        ...

    def step(self, done_count: int, all_count: int) -> None:
        """So much of the phase is done."""
        ...

    def warn(self, text: str) -> None:
        """Something went wrong that spoils no figure."""
        ...

    def second(self, at: int, found: tally.Tally, usage: document.Sample | None) -> None:
        """A second of the run has passed; below 0 is warm-up."""
        ...


class _Watch:
    """Collects seconds and samples while the run goes on."""

    def __init__(
        self,
        plan: plans.Plan,
        tree: server_usage.Tree | None,
        audience: Audience,
        *,
        measured_from: float,
    ) -> None:
        self._plan, self._tree, self._audience = plan, tree, audience
        self.seconds: dict[int, tally.Tallies] = {}
        self.samples: list[document.Sample] = []
        self._measured_from = measured_from
        self._sampled_at = -math.inf
        self._cpu_seconds = 0.0
        self._told = -math.inf
        self._busy_from: tuple[float, float] | None = None
        self._busy_until: tuple[float, float] | None = None

    def on_interval(self, interval: recorder.Interval | None) -> None:
        if interval is not None:
            fleet.merge_interval(self.seconds, interval)
        now = time.monotonic()
        if 0 <= now - self._measured_from <= self._plan.duration_seconds:
            times = _machine_times()
            self._busy_from = self._busy_from or times
            self._busy_until = times
        if now - self._sampled_at >= _SAMPLE_SECONDS:
            self._sample(now)
        self._tell(now)

    @property
    def machine_busy(self) -> float | None:
        """Share of all CPUs within the measured time; None: that was too short to tell."""
        if self._busy_from is None or self._busy_until is None:
            return None
        busy, total = (b - a for a, b in zip(self._busy_from, self._busy_until, strict=True))
        return min(1.0, busy / total) if total > 0 else None

    @property
    def server_cpus(self) -> float | None:
        """CPUs that the server kept busy in the mean; None: nobody knows."""
        within = [each["cpus"] for each in self.samples if each["at"] >= 0]
        return sum(within) / len(within) if within else None

    def _sample(self, now: float) -> None:
        at = now - self._measured_from
        if self._tree is not None and at <= self._plan.duration_seconds + _SAMPLE_SECONDS:
            usage = self._tree.usage()
            if self._sampled_at > -math.inf and usage.processes_count:
                spent = max(0.0, usage.cpu_seconds - self._cpu_seconds)
                self.samples.append(
                    document.Sample(
                        at=at, cpus=spent / (now - self._sampled_at), rss_bytes=usage.rss_bytes
                    )
                )
            self._cpu_seconds = usage.cpu_seconds
        self._sampled_at = now

    def _tell(self, now: float) -> None:
        # A second is complete when every process has told of it, a little after its end.
        last = math.floor(now - self._measured_from - 1.5)
        told = [at for at in self.seconds if self._told < at <= last]
        if told:
            self._told = max(told)
            found = tally.sum_of(
                each for name, each in self.seconds[max(told)].items() if name in self._plan.mix
            )
            self._audience.second(max(told), found, self.samples[-1] if self.samples else None)


class Bench:
    """A bucket that is filled, and processes that wait for their order. Made by ``prepared``."""

    def __init__(
        self,
        plan: plans.Plan,
        processes: fleet.Fleet,
        tree: server_usage.Tree | None,
        *,
        software: str,
        audience: Audience,
    ) -> None:
        self._plan, self._processes, self._tree = plan, processes, tree
        self._software, self._audience = software, audience

    def measure(
        self, *, label: str = "", server: Mapping[str, object] | None = None
    ) -> document.Document:
        """Warm up and measure.

        Args:
            label: The workload if empty.
            server: What else is to be said of the server.

        Raises:
            BenchmarkError: A process of the load generator failed.
        """
        begin = time.monotonic() + fleet.HEAD_START_SECONDS
        watch = _Watch(
            self._plan,
            self._tree,
            self._audience,
            measured_from=begin + self._plan.warm_up_seconds,
        )
        outcome = self._processes.run(begin, watch.on_interval)
        self._audience.phase("")
        return _document(
            self._plan,
            outcome,
            watch,
            label=label,
            software=self._software,
            tree=self._tree,
            told=server or {},
        )


@contextlib.contextmanager
def prepared(
    plan: plans.Plan,
    *,
    audience: Audience,
    server_pid: int | None = None,
    keep: bool = False,
) -> Iterator[Bench]:
    """The bucket made and filled, the processes started.

    What the run put into the bucket is deleted again at the end, also when it fails or is
    interrupted, unless it is to be kept.

    Args:
        server_pid: Sample this process; None: whoever listens at the endpoint on this machine.

    Raises:
        BenchmarkError: The server cannot be reached or refuses.
    """
    endpoint = plan.endpoint
    tree = (
        server_usage.find(endpoint.host, endpoint.port)
        if server_pid is None
        else server_usage.of_pid(server_pid)
    )
    fills = any(plan.mix.get(name, 0) for name in FILLED)
    with contextlib.ExitStack() as stack:
        place = bucket.Bucket(plan, generator.tls_context(plan))
        stack.callback(place.close)
        place.make()
        if not keep:
            stack.callback(_clean, place, plan, audience)
        audience.phase("signing requests")
        processes = stack.enter_context(fleet.Fleet(plan, fills=fills))
        if fills:
            _fill(processes, plan, audience)
        audience.phase("")
        yield Bench(plan, processes, tree, software=place.server, audience=audience)


def _fill(processes: fleet.Fleet, plan: plans.Plan, audience: Audience) -> None:
    audience.phase(f"putting {plan.keys_count:,} objects")
    done_count = 0

    def watch(interval: recorder.Interval | None) -> None:
        nonlocal done_count
        if interval is not None:
            done_count += sum(found.good_count for found in interval.tallies.values())
            audience.step(done_count, plan.keys_count)

    filled = tally.sum_of(processes.fill(watch).totals.values())
    if filled.error_count:
        told = ", ".join(f"{name} {count:,}" for name, count in filled.errors.most_common(3))
        raise failures.BenchmarkError(
            f"{filled.error_count:,} of {plan.keys_count:,} objects could not be put into "
            f"{plan.bucket} at {plan.endpoint.url} before the run: {told}"
        )


def _clean(place: bucket.Bucket, plan: plans.Plan, audience: Audience) -> None:
    audience.phase("deleting what the run has put")
    try:
        place.clean(lambda count: audience.step(count, max(count, plan.keys_count)))
    except failures.BenchmarkError as exc:
        # The figures are worth telling all the same, of a server that has died above all.
        audience.warn(
            f"what the run has put below {plan.prefix} in {plan.bucket} is still there: "
            f"{exc.message}"
        )
    audience.phase("")


def _document(
    plan: plans.Plan,
    outcome: generator.Outcome,
    watch: _Watch,
    *,
    label: str,
    software: str,
    tree: server_usage.Tree | None,
    told: Mapping[str, object],
) -> document.Document:
    within = {at: found for at, found in watch.seconds.items() if 0 <= at < recorder.AFTER}
    operations: dict[str, document.Figures] = {}
    for name in dict.fromkeys([*plan.mix, *sorted(outcome.totals)]):
        ended = tally.sum_of(found[name] for found in within.values() if name in found)
        found = outcome.totals.get(name, tally.Tally())
        operations[name] = _figures(found, ended, outcome.seconds)
    mixed = tally.sum_of(outcome.totals[name] for name in plan.mix if name in outcome.totals)
    mixed.errors.update(outcome.totals.get("connect", tally.Tally()).errors)
    if outcome.missed_count:
        mixed.errors["NotSent"] = outcome.missed_count
    mixed_ended = tally.sum_of(
        each[name] for each in within.values() for name in plan.mix if name in each
    )
    total = _figures(mixed, mixed_ended, outcome.seconds)
    cpus = [spent / outcome.seconds if outcome.seconds else 0.0 for spent in outcome.cpu_seconds]
    host = results.host_facts()
    facts = verdicts.Facts(
        generator_cpus=cpus,
        machine_busy=watch.machine_busy,
        server_cpus=watch.server_cpus,
        cpu_count=int(str(host["cpu_count"])),
        is_local=server_usage.is_local(plan.endpoint.host),
        is_open=plan.per_second is not None,
        lag_p99_ms=outcome.lags.percentile_ms(99),
        good_count=total["good_count"],
        error_count=total["error_count"],
        missed_count=outcome.missed_count,
        waited_count=outcome.waited_count,
        ran_out=outcome.ran_out,
        hopeless=outcome.hopeless,
        seconds=outcome.seconds,
        wanted_seconds=plan.duration_seconds,
    )
    return {
        **envelope("s3", label or plan.workload),
        "host": host,
        "options": options_of(plan),
        "server": {
            "url": plan.endpoint.url,
            "software": software,
            "is_local": facts.is_local,
            "sampled": None if tree is None else {"pid": tree.pid, "name": tree.name},
            **told,
        },
        "measured": {
            "seconds": outcome.seconds,
            "total": total,
            "operations": operations,
            "missed_count": outcome.missed_count,
            "waited_count": outcome.waited_count,
            "ran_out": outcome.ran_out,
        },
        "seconds": list(_moments(watch.seconds, plan, outcome)),
        "usage": watch.samples,
        "generator": document.Generator(
            cpus=cpus,
            lag_ms=document.latencies(outcome.lags),
            machine_busy=watch.machine_busy,
            bound=verdicts.bound(facts),
        ),
        "verdicts": verdicts.sentences(facts),
    }


def envelope(kind: str, label: str) -> document.Document:
    """What every document begins with."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "schema": document.SCHEMA,
        "kind": kind,
        "label": label,
        "taken_at": now.isoformat(timespec="seconds"),
        "commit": results.commit(),
        "version": version.installed(),
    }


def options_of(plan: plans.Plan) -> Mapping[str, object]:
    """What was asked for, without keys and secrets."""
    return {
        "workload": plan.workload,
        "mix": dict(plan.mix),
        "bucket": plan.bucket,
        "size": plan.sizes_text,
        "keys": plan.keys_text,
        "objects": plan.keys_count,
        "part_bytes": plan.part_bytes if "multipart" in plan.mix else None,
        "page": plan.page_keys_count if "list" in plan.mix else None,
        "loop": "closed" if plan.per_second is None else "open",
        "rate": plan.per_second,
        "arrivals": plan.arrivals if plan.per_second is not None else None,
        "connections": plan.connections,
        "processes": plan.process_count,
        "warm_up_seconds": plan.warm_up_seconds,
        "duration_seconds": plan.duration_seconds,
        "count": plan.count,
        "seed": plan.seed,
        "signed_payload": plan.signed_payload,
    }


def _figures(found: tally.Tally, ended: tally.Tally, seconds: float) -> document.Figures:
    return document.figures(
        found, ended_count=ended.good_count, ended_bytes=ended.size_bytes, seconds=seconds
    )


def _moments(
    seconds: Mapping[int, tally.Tallies], plan: plans.Plan, outcome: generator.Outcome
) -> Iterator[document.Moment]:
    for at in sorted(seconds):
        if at >= recorder.AFTER:
            continue
        length = min(at + 1.0, outcome.seconds) - max(at, -plan.warm_up_seconds)
        found = seconds[at]
        yield document.Moment(
            at=at,
            seconds=max(length, 1e-3),
            operations={name: document.second(each) for name, each in sorted(found.items())},
        )


def _machine_times() -> tuple[float, float]:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guests are counted among user time already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total
