"""What an object store may show after a crash, given what it acknowledged before.

Rules, for each key:

1. The state is the effect of the last acknowledged operation, or of an operation without an answer
   (in flight at the crash, or answered by an error that leaves the outcome open) that no later
   acknowledged operation has replaced.
2. A state once observed stays until an operation changes it.
3. A body is byte for byte the body of exactly one issued version; the ETag and the metadata
   belong to the same version.
4. What was replaced, refused or once found absent does not return.
"""

from __future__ import annotations

import collections
import enum
import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

ABSENT: Final = 0
"""The version of a key without an object."""
_FOREVER: Final = float("inf")


class Outcome(enum.Enum):
    """What is known about an issued operation."""

    UNKNOWN = "unknown"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True, kw_only=True)
class Operation:
    """One issued write. ``version`` is ABSENT for a DELETE; times are monotonic seconds."""

    key: str
    version: int
    sequence: int
    started: float
    size_bytes: int = 0
    part_sizes: tuple[int, ...] = ()
    ended: float = _FOREVER
    outcome: Outcome = Outcome.UNKNOWN

    def body(self) -> bytes:
        """The content, derived from the key and version alone."""
        return random.Random(f"{self.key}\0{self.version}").randbytes(self.size_bytes)

    def etag(self) -> str:
        """The ETag S3 defines for it, without quotes."""
        whole = self.body()
        if not self.part_sizes:
            return hashlib.md5(whole, usedforsecurity=False).hexdigest()
        digests, offset = b"", 0
        for size in self.part_sizes:
            part = whole[offset : offset + size]
            digests += hashlib.md5(part, usedforsecurity=False).digest()
            offset += size
        joined = hashlib.md5(digests, usedforsecurity=False).hexdigest()
        return f"{joined}-{len(self.part_sizes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An object as a client saw it. ``body`` is None where only its facts were asked for."""

    version: int
    etag: str
    size_bytes: int
    body: bytes | None = None


@dataclass(slots=True)
class _History:
    """Operations that may still show, in the order of issue."""

    candidates: list[Operation] = field(default_factory=list)
    must_exist: bool = False


class Oracle:
    """Records operations and judges sightings. Not safe for threads."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}
        self._sequence = 0
        self.acknowledged_count = 0
        self.unknown_count = 0
        self.refused_count = 0
        self.violations: list[str] = []

    def keys(self) -> list[str]:
        """Every key ever written, in byte order."""
        return sorted(self._histories, key=str.encode)

    def issue(
        self,
        key: str,
        *,
        started: float,
        size_bytes: int = 0,
        part_sizes: tuple[int, ...] = (),
        delete: bool = False,
    ) -> Operation:
        """Record a write before it is sent."""
        self._sequence += 1
        operation = Operation(
            key=key,
            version=ABSENT if delete else self._sequence,
            sequence=self._sequence,
            started=started,
            size_bytes=size_bytes,
            part_sizes=part_sizes,
        )
        history = self._history(key)
        history.candidates.append(operation)
        history.must_exist = history.must_exist and not delete
        self.unknown_count += 1
        return operation

    def acknowledge(self, operation: Operation, *, ended: float, etag: str = "") -> None:
        """The server said the write is done."""
        operation.outcome, operation.ended = Outcome.ACKNOWLEDGED, ended
        self.unknown_count -= 1
        self.acknowledged_count += 1
        if etag and etag != operation.etag():
            self._violate(operation.key, f"version {operation.version} acknowledged as {etag}")
        history = self._history(operation.key)
        if operation in history.candidates:
            history.candidates = _surviving(history.candidates)
        else:
            self._violate(operation.key, f"version {operation.version} acknowledged too late")

    def refuse(self, operation: Operation, *, exists: bool = False) -> None:
        """The server said the write has not happened; ``exists``: because the key is taken."""
        self.unknown_count -= 1
        self.refused_count += 1
        history = self._history(operation.key)
        history.candidates = [each for each in history.candidates if each is not operation]
        if exists:
            history.must_exist = True
            if not any(each.version for each in history.candidates):
                self._violate(operation.key, "reported as taken but never written")

    def conditional_success(self, operation: Operation) -> None:
        """An acknowledged write that demanded an absent key (nobody deletes such keys)."""
        history = self._history(operation.key)
        for other in history.candidates:
            if other is not operation and other.version and _is_certain(other):
                self._violate(operation.key, "two conditional writes both succeeded")

    def observe(self, key: str, sighting: Sighting | None, *, started: float, ended: float) -> None:
        """Judge one sighting while the server runs; what was seen must stay."""
        self._judge(key, sighting, started=started, ended=ended)

    def settle(self, key: str, sighting: Sighting | None) -> None:
        """Judge a sighting after a restart: nothing is in flight, so all else is now ruled out."""
        seen = self._judge(key, sighting, started=_FOREVER, ended=_FOREVER)
        history = self._history(key)
        version = ABSENT if sighting is None else sighting.version
        if seen is None:
            # Judged already; carry on from what is there, so that one loss is told once.
            seen = next((each for each in history.candidates if each.version == version), None)
        for each in history.candidates:
            if each is not seen and each.outcome is Outcome.UNKNOWN:
                self.unknown_count -= 1
        if seen is None:
            seen = Operation(key=key, version=ABSENT, sequence=0, started=0.0)
        elif seen.outcome is Outcome.UNKNOWN and seen.sequence:
            self.unknown_count -= 1
        seen.outcome, seen.started, seen.ended = Outcome.ACKNOWLEDGED, 0.0, 0.0
        history.candidates = [seen]
        history.must_exist = False

    def compare(self, key: str, sighting: Sighting | None, *, source: str) -> None:
        """Demand that another way of looking (LIST, HEAD) agrees with the settled state."""
        settled = self._history(key).candidates[-1]
        if sighting is None or settled.version == ABSENT:
            if (sighting is None) != (settled.version == ABSENT):
                shown = "absent" if sighting is None else "present"
                self._violate(key, f"{source} shows it {shown}, GET does not")
            return
        if (sighting.etag, sighting.size_bytes) != (settled.etag(), settled.size_bytes):
            self._violate(
                key,
                f"{source} shows {sighting.etag} of {sighting.size_bytes} bytes, GET shows "
                f"{settled.etag()} of {settled.size_bytes}",
            )

    def compare_listing(self, listing: Iterable[tuple[str, Sighting]]) -> None:
        """Demand that a full listing shows every settled key once, in order, and nothing else."""
        rows = list(listing)
        names = [key for key, _ in rows]
        if names != sorted(names, key=str.encode):
            self._violate("(listing)", "is out of order")
        repeated = [key for key, count in collections.Counter(names).items() if count > 1]
        if repeated:
            self._violate("(listing)", f"repeats {repeated[:5]}")
        for stray in sorted(set(names) - set(self._histories)):
            self._violate(stray, "is listed but was never written")
        shown = dict(rows)
        for key in self._histories:
            self.compare(key, shown.get(key), source="LIST")

    def unreadable(self, key: str, reason: str) -> None:
        """The server, up and ready, could not answer for this key."""
        self._violate(key, f"is unreadable: {reason}")

    def check(self) -> None:
        """Raises AssertionError naming every violation found so far."""
        shown = "\n  ".join(self.violations[:40])
        assert not self.violations, f"{len(self.violations)} violations:\n  {shown}"

    def _judge(
        self, key: str, sighting: Sighting | None, *, started: float, ended: float
    ) -> Operation | None:
        """The operation that explains the sighting, or None after recording a violation."""
        history = self._history(key)
        version = ABSENT if sighting is None else sighting.version
        matching = [each for each in history.candidates if each.version == version]
        if sighting is not None and matching:
            self._verify(matching[0], sighting)
        if not matching:
            allowed = [_name(each) for each in history.candidates]
            shown = "nothing" if sighting is None else f"version {version}"
            self._violate(key, f"shows {shown}; allowed: {', '.join(allowed)}")
            return None
        if sighting is None and history.must_exist:
            self._violate(key, "was reported as existing and is now absent")
            return None
        seen = matching[-1]
        # What ended before this sighting began and was not seen has been replaced for good.
        history.candidates = [
            each for each in history.candidates if each is seen or each.ended >= started
        ]
        if seen.outcome is Outcome.UNKNOWN and ended != _FOREVER:
            # Its effect is certain from here on: anything begun later replaces it.
            seen.outcome, seen.ended = Outcome.ACKNOWLEDGED, ended
            self.unknown_count -= 1
            history.candidates = _surviving(history.candidates)
        return seen

    def _verify(self, operation: Operation, sighting: Sighting) -> None:
        name = _name(operation)
        if sighting.size_bytes != operation.size_bytes:
            self._violate(operation.key, f"{name} has {sighting.size_bytes} bytes")
        if sighting.etag != operation.etag():
            self._violate(operation.key, f"{name} has ETag {sighting.etag}")
        if sighting.body is not None and sighting.body != operation.body():
            expected = operation.body()
            first = next(
                (
                    i
                    for i, (a, b) in enumerate(zip(sighting.body, expected, strict=False))
                    if a != b
                ),
                min(len(sighting.body), len(expected)),
            )
            self._violate(operation.key, f"{name} is torn: differs from byte {first} on")

    def _history(self, key: str) -> _History:
        history = self._histories.get(key)
        if history is None:
            never = Operation(key=key, version=ABSENT, sequence=0, started=0.0, ended=0.0)
            never.outcome = Outcome.ACKNOWLEDGED
            history = self._histories[key] = _History([never])
        return history

    def _violate(self, key: str, text: str) -> None:
        self.violations.append(f"{key}: {text}")


def _surviving(candidates: list[Operation]) -> list[Operation]:
    """Without what an acknowledged operation has certainly replaced."""
    newest = max(
        (each.started for each in candidates if each.outcome is Outcome.ACKNOWLEDGED), default=0.0
    )
    return [each for each in candidates if each.ended >= newest]


def _is_certain(operation: Operation) -> bool:
    return operation.outcome is Outcome.ACKNOWLEDGED and operation.sequence > 0


def _name(operation: Operation) -> str:
    if operation.version == ABSENT:
        return "absence" if operation.sequence == 0 else f"absence by delete {operation.sequence}"
    shape = f" in {len(operation.part_sizes)} parts" if operation.part_sizes else ""
    return f"version {operation.version} ({operation.outcome.value}{shape})"
