"""What the parts of a node's object store share: index, commits, bodies, clock."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from typing import Protocol, TypeVar

import xxhash

from couchestor_daemon.formats import l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    body_writer,
    commit_log,
    extent_reader,
    group_commit,
    notice_queue,
)
from couchestor_daemon.services.catalogue import uploads, versions
from couchestor_domain import ids, version_ids

T = TypeVar("T")


class Clock(Protocol):
    """Wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...


class NodeChanges:
    """Reads the index, and commits what changes it.

    Args:
        part_bytes_min: Smallest part of an upload that is not its last one.
        draw_upload_id: Gives ids that nobody can guess.
        draw_random: Gives what makes ids of versions so.
        notices_max: Notices that may wait for one target.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        commits: group_commit.GroupCommit,
        bodies: body_writer.BodyWriter,
        extents: extent_reader.ExtentReader,
        clock: Clock,
        part_bytes_min: int = uploads.PART_BYTES_MIN,
        draw_upload_id: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        draw_random: versions.DrawRandom = lambda: secrets.token_bytes(version_ids.RANDOM_BYTES),
        notices_max: int = notice_queue.WAITING_MAX,
    ) -> None:
        self._index = index
        self._commits = commits
        self._bodies = bodies
        self._extents = extents
        self._clock = clock
        self._part_bytes_min = part_bytes_min
        self._draw_upload_id = draw_upload_id
        self._draw_random = draw_random
        self._notices = notice_queue.NoticeQueue(clock.now_ns, waiting_max=notices_max)

    async def _change(
        self,
        apply: Callable[[index_port.IndexWriter, commit_log.Placement], T],
        *,
        written: body_writer.WrittenBody | None = None,
        uses_reserve: bool = False,
    ) -> T:
        """Commit a change; with a body, its rest as payload, and settled when that has ended."""
        operation = commit_log.Operation(apply=apply, uses_reserve=uses_reserve)
        if written is not None:
            operation.payload = memoryview(written.rest)
            if written.places:
                operation.on_end = functools.partial(self._bodies.settle, written)
        return await self._commits.submit(operation)  # type: ignore[return-value]

    @staticmethod
    def _locations(
        written: body_writer.WrittenBody, place: commit_log.Placement
    ) -> list[tuple[ids.ExtentAddress, l2p_record.Location]]:
        locations = list(written.locations)
        if written.rest:
            locations.append(
                (
                    written.rest_address,
                    l2p_record.JournalLocation(
                        place.segment_id,
                        place.offset_bytes,
                        place.length_bytes,
                        xxhash.xxh3_64_intdigest(written.rest),
                    ),
                )
            )
        return locations
