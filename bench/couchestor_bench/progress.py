"""How a benchmark goes, on a terminal."""

from __future__ import annotations

import shutil
from typing import TextIO

from couchestor_bench.reports import document, tally, text
from couchestor_domain import units


class Terminal:
    """One line that changes. ``engine.bench_run.Audience``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""

    def phase(self, text: str) -> None:
        self._phase = text
        self._show(text)

    def step(self, done_count: int, all_count: int) -> None:
        self._show(f"{self._phase}: {done_count:,} of {all_count:,}")

    def warn(self, text: str) -> None:
        self._show("")
        self._stream.write(f"couchestor: {text}\n")

    def second(self, at: int, found: tally.Tally, usage: document.Sample | None) -> None:
        where = f"{at + 1:>4} s" if at >= 0 else "warm-up"
        words = [
            f"{where:<8}{found.good_count:>9,}/s",
            f"{text.number(found.size_bytes / units.MIB):>7} MiB/s",
            f"p50 {text.number(found.latencies.percentile_ms(50)):>6} ms",
            f"p99 {text.number(found.latencies.percentile_ms(99)):>6} ms",
            f"errors {found.error_count:,}",
        ]
        if usage is not None:
            rss = usage["rss_bytes"] / units.MIB
            words.append(f"server {usage['cpus']:.2f} CPUs {rss:,.0f} MiB")
        self._show("  ".join(words))

    def _show(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._stream.write(f"\r\x1b[2K{line[: columns - 1]}")
        self._stream.flush()


class Silent:
    """Only warns: the output goes to a file or a program. ``engine.bench_run.Audience``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def phase(self, text: str) -> None: ...

    def step(self, done_count: int, all_count: int) -> None: ...

    def warn(self, text: str) -> None:
        self._stream.write(f"couchestor: {text}\n")

    def second(self, at: int, found: tally.Tally, usage: document.Sample | None) -> None: ...
