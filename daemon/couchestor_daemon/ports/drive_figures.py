"""What the commands of a device took, counted: the words that who counts and who judges share.

A count belongs to a kind of command and a size, because a device that is given longer commands than
its peers must not look slower than they do.
"""

from __future__ import annotations

import bisect
import enum
from typing import Final, NamedTuple

from couchestor_domain import units

BUCKETS_COUNT: Final = 44
BOUNDS_SECONDS: Final = tuple(16e-6 * 2 ** (index / 2) for index in range(BUCKETS_COUNT - 1))
"""Upper bounds of all buckets but the last, to half a minute, a root of two apart."""
_MIDDLES_SECONDS: Final = (
    *(bound / 2**0.25 for bound in BOUNDS_SECONDS),
    BOUNDS_SECONDS[-1] * 2**0.25,
)
SMALL_BYTES_MAX: Final = 64 * units.KIB
MEDIUM_BYTES_MAX: Final = 512 * units.KIB


class Command(enum.IntEnum):
    """Kinds of commands."""

    READ = 0
    WRITE = 1
    """Not durable when it returns."""
    APPEND = 2
    """Durable."""
    FLUSH = 3


class Size(enum.IntEnum):
    """Classes of lengths."""

    SMALL = 0
    MEDIUM = 1
    LARGE = 2


SLOTS_COUNT: Final = len(Command) * len(Size)


class Figures(NamedTuple):
    """What one device did in some time."""

    counts: tuple[int, ...]
    """``BUCKETS_COUNT`` for each slot, see ``slot``."""
    failed_reads_count: int = 0
    wrong_places_count: int = 0
    """Distinct places whose bytes did not match their checksums."""

    def commands_count(self, slot: int) -> int:
        """Commands of a slot."""
        return sum(self.counts[slot * BUCKETS_COUNT : (slot + 1) * BUCKETS_COUNT])

    def mean_seconds(self, slot: int) -> float:
        """Mean duration of the commands of a slot, to 19 %; 0.0 when there were none."""
        part = self.counts[slot * BUCKETS_COUNT : (slot + 1) * BUCKETS_COUNT]
        count = sum(part)
        if not count:
            return 0.0
        return sum(map(float.__mul__, _MIDDLES_SECONDS, map(float, part))) / count


NOTHING: Final = Figures((0,) * (SLOTS_COUNT * BUCKETS_COUNT))


def slot(command: Command, size: Size) -> int:
    """Where the counts of a kind and size are."""
    return command * len(Size) + size


def slot_name(number: int) -> str:
    """A slot in a sentence, e.g. ``small reads``."""
    command, size = Command(number // len(Size)), Size(number % len(Size))
    if command is Command.FLUSH:
        return "flushes"
    kind = {Command.READ: "reads", Command.WRITE: "writes", Command.APPEND: "durable writes"}
    return f"{size.name.lower()} {kind[command]}"


def bucket(seconds: float) -> int:
    """Where a duration is counted."""
    return bisect.bisect_left(BOUNDS_SECONDS, seconds)
