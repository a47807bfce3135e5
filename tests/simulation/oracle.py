"""What a store may show, given what it answered: each key is a register.

Time is a count of events, so "before" is exact. For each key the oracle keeps the writes whose
effect may be the present state:

begin    A write may take effect from now on.
ack      It has taken effect: whatever ended before it began is gone for good.
refuse   It has not and never will.
fail     An error that leaves the outcome open: the bytes may lie in the log unanswered. The next
         commit of the node voids them (docs/adr/0002); until then a recovery may bring them back.
observe  The state is one of the possible writes; what ended before the look began and was not seen
         is gone for good, unless it may still lie in the log unanswered.
crash    Whatever was under way has ended, with its outcome open.
fenced   A commit has voided everything whose outcome was open.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Final

ABSENT: Final = 0
"""The version of a key that is not there."""
LINE_BYTES: Final = 64
"""Of bodies that compress."""


@dataclass(slots=True, eq=False, kw_only=True)
class Write:
    """One change of one key. ``version`` is ABSENT for a removal."""

    key: str
    version: int
    started: int
    size_bytes: int = 0
    part_sizes: tuple[int, ...] = ()
    part_versions: tuple[int, ...] = ()
    ended: float = math.inf
    in_doubt: bool = False
    certain: bool = False
    refused: bool = False


def content(version: int, size_bytes: int) -> bytes:
    """The bytes of a version. Those of every third one compress; no two lines of it are alike."""
    rng = random.Random(version)
    if version % 3:
        return rng.randbytes(size_bytes)
    line = rng.randbytes(LINE_BYTES - 8)
    lines = (number.to_bytes(8, "big") + line for number in range(size_bytes // LINE_BYTES + 1))
    return b"".join(lines)[:size_bytes]


def body_of(write: Write) -> bytes:
    """The bytes a write stored."""
    if not write.part_sizes:
        return content(write.version, write.size_bytes)
    return b"".join(map(content, write.part_versions, write.part_sizes))


def etag_of(write: Write) -> str:
    """The ETag S3 defines for a write, without quotes."""
    if not write.part_sizes:
        return _md5(body_of(write)).hex()
    digests = b"".join(
        _md5(content(version, size))
        for version, size in zip(write.part_versions, write.part_sizes, strict=True)
    )
    return f"{_md5(digests).hex()}-{len(write.part_sizes)}"


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


class Oracle:
    """Histories of all keys of one simulated store. Raises AssertionError at the first lie."""

    def __init__(self) -> None:
        self._now = 0
        self._versions_count = 0
        self._voided_before = 0
        self._possible: dict[str, list[Write]] = {}

    def tick(self) -> int:
        """The next moment."""
        self._now += 1
        return self._now

    def draw_version(self) -> int:
        """A version never used before."""
        self._versions_count += 1
        return self._versions_count

    def names(self) -> list[str]:
        """Every key ever written, in byte order."""
        return sorted(self._possible, key=str.encode)

    def begin(
        self,
        key: str,
        version: int,
        *,
        size_bytes: int = 0,
        part_sizes: tuple[int, ...] = (),
        part_versions: tuple[int, ...] = (),
    ) -> Write:
        """A write is about to be sent."""
        write = Write(
            key=key,
            version=version,
            started=self.tick(),
            size_bytes=size_bytes,
            part_sizes=part_sizes,
            part_versions=part_versions,
        )
        self._of(key).append(write)
        return write

    def ack(self, write: Write, *, commits: bool = True) -> None:
        """The store said it is done.

        Args:
            commits: Whether the answer took a commit. Removing what is not there does not, so what
                is in doubt stays so.
        """
        write.ended = min(write.ended, self.tick())
        if commits:
            self._voided_before = max(self._voided_before, write.started)
        self._settle_on(write)

    def certainly(self, write: Write) -> None:
        """A write is known by its other effects to have happened."""
        write.ended = min(write.ended, self._now)
        self._voided_before = max(self._voided_before, write.started)
        self._settle_on(write)

    def _settle_on(self, write: Write) -> None:
        write.certain, write.in_doubt = True, False
        voided = self._voided_before
        self._possible[write.key] = [
            other
            for other in self._of(write.key)
            if other.ended >= write.started or (other.in_doubt and other.ended >= voided)
        ]

    def refuse(self, write: Write) -> None:
        """It has not taken effect and never will."""
        assert not write.certain, f"{describe(write)} was seen and then refused"
        write.refused = True
        self._possible[write.key] = [o for o in self._of(write.key) if o is not write]

    def refuse_as_taken(self, write: Write, *, started: int) -> None:
        """Refused because the key exists: a look that saw one of the versions."""
        self.refuse(write)
        present = [other for other in self._of(write.key) if other.version != ABSENT]
        assert present, f"{write.key}: refused as taken, but nothing was ever written"
        self._rule_out(write.key, present, started)

    def win(self, write: Write) -> None:
        """A write that demanded an absent key was acknowledged; such keys are never removed."""
        for other in self._of(write.key):
            assert other is write or other.version == ABSENT or not other.certain, (
                f"{write.key}: {describe(other)} and {describe(write)} both found it absent"
            )

    def fail(self, write: Write) -> None:
        """An error that leaves the outcome open."""
        write.ended = min(write.ended, self.tick())
        write.in_doubt = not write.certain

    def crash(self) -> None:
        """Nothing is under way any more."""
        now = self.tick()
        for writes in self._possible.values():
            for write in writes:
                if write.ended == math.inf:
                    write.ended = now
                    write.in_doubt = True

    def fenced(self) -> None:
        """A commit has been made: what was in doubt is void unless it is there."""
        self._voided_before = self.tick()

    def observe(self, key: str, version: int, *, started: int) -> Write:
        """The state was seen between ``started`` and now; returns a write that explains it."""
        matching = [write for write in self._of(key) if write.version == version]
        if not matching:
            allowed = ", ".join(describe(write) for write in self._of(key))
            shown = "nothing" if version == ABSENT else f"version {version}"
            raise AssertionError(f"{key} shows {shown}; allowed: {allowed}")
        if len(matching) == 1:
            matching[0].certain, matching[0].in_doubt = True, False
            matching[0].ended = min(matching[0].ended, self.tick())
        self._rule_out(key, matching, started)
        return matching[-1]

    def possible(self, key: str) -> list[Write]:
        """Writes whose effect may be the present state."""
        return list(self._of(key))

    def _rule_out(self, key: str, seen: list[Write], started: int) -> None:
        """Drop what cannot show any more, after one of ``seen`` was the state."""
        first = min(write.started for write in seen)
        voided = self._voided_before

        def survives(write: Write) -> bool:
            if write in seen:
                return True
            if write.in_doubt and write.ended >= voided:
                return True
            return write.ended >= started and write.ended >= first

        self._possible[key] = [write for write in self._of(key) if survives(write)]

    def _of(self, key: str) -> list[Write]:
        writes = self._possible.get(key)
        if writes is None:
            never = Write(key=key, version=ABSENT, started=0, ended=0, certain=True)
            writes = self._possible[key] = [never]
        return writes


def describe(write: Write) -> str:
    """A write in a message."""
    kind = "absence" if write.version == ABSENT else f"version {write.version}"
    state = "certain" if write.certain else "in doubt" if write.in_doubt else "under way"
    return f"{kind} of {write.size_bytes} bytes ({state}, {write.started} to {write.ended})"
