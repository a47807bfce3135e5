"""What outlives the lives of a simulated node: the oracle, uploads under way, a trace."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Final

from tests.simulation import node_shape, oracle

from couchestor_daemon.services import node_store
from couchestor_domain import errors, objects

BUCKET: Final = "bucket"


@dataclass(slots=True, kw_only=True)
class Upload:
    """A multipart upload as its client knows it."""

    client: int
    version: int
    key: str
    record: objects.UploadRecord
    parts: dict[int, oracle.Write] = field(default_factory=dict)
    doubtful: bool = False
    """An operation on it has an open outcome: its client leaves it alone."""
    completion: oracle.Write | None = None
    removal: oracle.Write | None = None

    @property
    def register(self) -> str:
        """The oracle's name for whether it is under way."""
        return f"upload {self.version}"

    def part_register(self, number: int) -> str:
        """The oracle's name for a part."""
        return f"part {self.version}/{number}"


class Ledger:
    """Shared by the clients of all lives."""

    def __init__(self) -> None:
        self.judge = oracle.Oracle()
        self.uploads: list[Upload] = []
        self.once_keys_count = 1
        self.errors_are_expected = False
        """Whether writes may be refused now for want of room or devices."""
        self.operations_count = 0
        self.gone_count = 0
        """Reads that took longer than the grace of zones and found theirs given to others."""
        self._digest = hashlib.sha256()

    def trace(self, *facts: object) -> None:
        """Add to the trace by which two runs are compared."""
        self._digest.update(repr(facts).encode())

    def trace_hash(self) -> str:
        """Digest of everything traced so far."""
        return self._digest.hexdigest()

    def observe_record(
        self, key: str, record: objects.ObjectRecord | None, *, started: int
    ) -> oracle.Write:
        """Judge what a GET, HEAD or LIST showed of a key."""
        version = oracle.ABSENT if record is None else int(record.metadata["version"])
        self.trace("saw", key, version)
        write = self.judge.observe(key, version, started=started)
        if record is not None:
            shown = (record.etag, record.size_bytes)
            expected = (oracle.etag_of(write), write.size_bytes)
            assert shown == expected, f"{key} version {version} shows {shown}, not {expected}"
        return write

    async def read_key(
        self, store: node_store.NodeStore, key: str, *, pause_seconds: float = 0.0
    ) -> objects.ObjectRecord | None:
        """HEAD and whole GET of a key, judged; returns the record.

        Args:
            pause_seconds: How long the client takes before each piece; the version may be replaced
                meanwhile, and must still be read to its end.
        """
        started = self.judge.tick()
        try:
            record = await store.get_object(bucket=BUCKET, key=key)
        except errors.NoSuchKeyError:
            self.observe_record(key, None, started=started)
            return None
        looked_up_at = asyncio.get_running_loop().time()
        write = self.observe_record(key, record, started=started)
        pieces = store.stream(record, start_bytes=0, length_bytes=record.size_bytes)
        body = bytearray()
        await asyncio.sleep(pause_seconds)
        try:
            async for piece in pieces:
                body += piece
                await asyncio.sleep(pause_seconds)
        except errors.VersionGoneError:
            taken_seconds = asyncio.get_running_loop().time() - looked_up_at
            assert taken_seconds > node_shape.GRACE_SECONDS, (
                f"{key} was given away under a read of {taken_seconds} s"
            )
            self.trace("gone", key)
            self.gone_count += 1
            return record
        assert body == oracle.body_of(write), f"{key} is torn: {oracle.describe(write)}"
        return record
