"""Lines of the logs of buckets, until they are written as objects: best effort, in bounded memory.

As S3 does it: a line may come late, and is lost with the process that holds it. What finds no room,
or no bucket to go to, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

from couchestor_domain import access, errors, objects, units
from couchestor_gateway.edge import request_body
from couchestor_gateway.ports import clock as clock_port
from couchestor_gateway.ports import object_store, offloading
from couchestor_gateway.protocol import digests, logging_status

LOG: Final = logging.getLogger("couchestor.gateway")

OBJECT_BYTES: Final = units.MIB
"""A log object is written when it has as much, or when it is time."""
HELD_BYTES_MAX: Final = 8 * units.MIB
"""Of all lines that one process holds."""
DELIVERY_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0
STOP_SECONDS: Final = 5.0
"""How long the last lines may take to be written."""
_DAY_NS: Final = 24 * 3600 * units.NS_PER_SECOND

CountHook = Callable[[str, int], None]
"""Told how many lines were ``written`` or ``dropped``."""


class _Place(NamedTuple):
    """What lines go into one object."""

    logging: logging_status.Logging
    owner: str
    bucket: str
    day: int


@dataclasses.dataclass(slots=True)
class _Held:
    """Lines of one place."""

    lines: list[bytes] = dataclasses.field(default_factory=list)
    held_bytes: int = 0
    event_ns: int = 0


class LogCollector:
    """Collects lines of one process and writes them as objects of the target's owner.

    Args:
        on_count: Told what became of lines.
    """

    def __init__(
        self,
        buckets: object_store.BucketStore,
        objects: object_store.ObjectStore,
        *,
        region: str,
        clock: clock_port.Clock,
        offload: offloading.Offload,
        on_count: CountHook | None = None,
        delivery_seconds: float = DELIVERY_SECONDS,
        held_bytes_max: int = HELD_BYTES_MAX,
    ) -> None:
        self._buckets = buckets
        self._objects = objects
        self._region = region
        self._clock = clock
        self._offload = offload
        self._on_count = on_count or (lambda outcome, count: None)
        self._delivery_seconds = delivery_seconds
        self._held_bytes_max = held_bytes_max
        self._held: dict[_Place, _Held] = {}
        self._held_bytes = 0
        self._full = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_failing = False
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    def add(
        self,
        bucket: objects.BucketRecord,
        logging: logging_status.Logging,
        line: bytes,
        *,
        time_ns: int,
    ) -> None:
        """Hold a line of a bucket's log.

        Args:
            time_ns: When its request came, since the Unix epoch.
        """
        if self._held_bytes + len(line) > self._held_bytes_max:
            self._on_count("dropped", 1)
            return
        by_day = logging.key_format is logging_status.KeyFormat.EVENT_TIME
        place = _Place(logging, bucket.owner, bucket.name, time_ns // _DAY_NS if by_day else 0)
        held = self._held.get(place)
        if held is None:
            held = self._held[place] = _Held()
        held.lines.append(line)
        held.held_bytes += len(line)
        held.event_ns = time_ns
        self._held_bytes += len(line)
        if held.held_bytes >= OBJECT_BYTES:
            self._full.set()

    def start(self) -> None:
        """Write what is held, again and again, until ``stop``."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write what is held, at the end; what cannot be written in time is dropped."""
        self._is_stopping = True
        self._full.set()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                if self._task is not None:
                    await self._task
                await self.flush()
        except TimeoutError:
            LOG.warning("the store does not take the logs of buckets in time")
        left_count = sum(len(held.lines) for held in self._held.values())
        if left_count:
            LOG.warning("%d lines of the logs of buckets are lost with this process", left_count)
            self._on_count("dropped", left_count)
        self._held.clear()
        self._held_bytes = 0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._delivery_seconds
        while not self._is_stopping:
            try:
                async with asyncio.timeout_at(due):
                    await self._full.wait()
            except TimeoutError:
                due = loop.time() + self._delivery_seconds
                await self.flush()
            else:
                self._full.clear()
                await self.flush(least_bytes=OBJECT_BYTES)
            if self._is_failing:
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self, *, least_bytes: int = 0) -> None:
        """Write what is held; what cannot be written now is held on.

        Args:
            least_bytes: Leave places that hold less.
        """
        async with self._writing:
            ready = [key for key, held in self._held.items() if held.held_bytes >= least_bytes]
            for place in ready:
                held = self._held.pop(place)
                self._held_bytes -= held.held_bytes
                await self._write(place, held)

    async def _write(self, place: _Place, held: _Held) -> None:
        count = len(held.lines)
        try:
            await self._put(place, b"".join(held.lines), event_ns=held.event_ns)
        except asyncio.CancelledError:
            self._on_count("dropped", count)
            raise
        except errors.ClientError as exc:
            # The target is gone, or is somebody else's by now.
            LOG.warning("%d log lines of bucket %s are dropped: %s", count, place.bucket, exc)
            self._on_count("dropped", count)
        except errors.CouchestorError as exc:
            if not self._is_failing:
                self._is_failing = True
                LOG.warning("the log of bucket %s waits: %s", place.bucket, exc)
            self._hold_again(place, held)
        except Exception:
            LOG.exception("%d log lines of bucket %s are dropped", count, place.bucket)
            self._on_count("dropped", count)
        else:
            self._is_failing = False
            self._on_count("written", count)

    def _hold_again(self, place: _Place, held: _Held) -> None:
        if self._held_bytes + held.held_bytes > self._held_bytes_max:
            self._on_count("dropped", len(held.lines))
            return
        newer = self._held.get(place, _Held())
        self._held[place] = _Held(
            held.lines + newer.lines,
            held.held_bytes + newer.held_bytes,
            newer.event_ns or held.event_ns,
        )
        self._held_bytes += held.held_bytes

    async def _put(self, place: _Place, content: bytes, *, event_ns: int) -> None:
        target = await self._buckets.get_bucket(place.logging.bucket)
        if target.owner != place.owner:
            raise errors.NoSuchBucketError(
                f"bucket {target.name} is not of the owner of {place.bucket}", bucket=target.name
            )
        acl = None
        if place.logging.grants and target.access.has_acls:
            mine = access.Grant(access.Permission.FULL_CONTROL, target.owner)
            acl = access.normal((*place.logging.grants, mine), owner=target.owner)
        key = logging_status.log_key(
            place.logging,
            source_owner=place.owner,
            source_bucket=place.bucket,
            region=self._region,
            event_ns=event_ns,
            now_ns=self._clock.now_ns(),
            unique=secrets.token_hex(8).upper(),
        )
        put = objects.PutRequest(
            bucket=target.name,
            key=key,
            headers={"content-type": "text/plain"},
            owner=target.owner,
            acl=acl,
            bucket_owner=target.owner,
        )
        await self._objects.put_object(put, _Content(content, self._offload))


class _Content:
    """Bytes at hand as a ``BodySource``."""

    may_end_early = False

    def __init__(self, content: bytes, offload: offloading.Offload) -> None:
        self.size_bytes = len(content)
        self._rest = memoryview(content)
        self._digester = digests.BodyDigester(())
        self._offload = offload

    async def readinto(self, *views: memoryview) -> int:
        """See ``BodySource.readinto``."""
        pieces: list[memoryview] = []
        for view in views:
            piece = self._rest[: len(view)]
            view[: len(piece)] = piece
            self._rest = self._rest[len(piece) :]
            pieces.append(view[: len(piece)])
        await request_body.digest(self._digester, pieces, self._offload)
        return sum(map(len, pieces))

    async def finish(self) -> objects.BodyDigests:
        """See ``BodySource.finish``."""
        return self._digester.finish({})
