"""Concurrent clients of a simulated node: what they ask for, and what they tell the oracle.

A client owns a few keys, shares some with all others, and races for keys that are only ever written
with ``If-None-Match: *``. It reads through any worker what was written through any other.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from tests.simulation import ledger, node_shape, oracle, simulated_process, virtual_loop

from couchestor_daemon.services import node_store
from couchestor_domain import errors, objects

T = TypeVar("T")

OWN_KEYS_COUNT: Final = 3
SHARED_KEYS: Final = ("shared/a", "shared/b", "shared/" + "long" * 150)
PAUSE_SECONDS_MEAN: Final = 1e-3
CANCELLED_RATIO: Final = 0.04
TRUNCATED_RATIO: Final = 0.03
SLOW_RATIO: Final = 0.15
SLOW_SECONDS_MEAN: Final = 5e-3
FIRST_VERSION: Final = objects.WriteConditions(if_none_match="*")


class WorkerDiedError(Exception):
    """The connection broke: its worker process is dead."""


class SimulatedBody:
    """A request body that arrives in pieces, sometimes slowly, sometimes too short."""

    may_end_early = False

    def __init__(self, data: bytes, *, announced_bytes: int, pause_seconds: float = 0.0) -> None:
        self.size_bytes = announced_bytes
        self._pause_seconds = pause_seconds
        self._data = data
        self._position = 0

    async def readinto(self, *views: memoryview) -> int:
        filled = 0
        await asyncio.sleep(self._pause_seconds)
        for view in views:
            await asyncio.sleep(0)
            piece = self._data[self._position : self._position + len(view)]
            view[: len(piece)] = piece
            self._position += len(piece)
            filled += len(piece)
        return filled

    async def finish(self) -> objects.BodyDigests:
        await asyncio.sleep(self._pause_seconds)
        return objects.BodyDigests(etag=hashlib.md5(self._data, usedforsecurity=False).hexdigest())


class Client:
    """One task's worth of requests.

    Args:
        workers: Those that serve now, each to be asked while it lives.
    """

    def __init__(
        self,
        number: int,
        *,
        seed: str,
        book: ledger.Ledger,
        shape: node_shape.Shape,
        workers: Sequence[simulated_process.Worker],
    ) -> None:
        self._number = number
        self._rng = random.Random(f"{seed}/client {number}")
        self._book = book
        self._judge = book.judge
        self._shape = shape
        self._workers = workers
        self._worker = workers[0]
        self._own = [f"own/{number}/{index}" for index in range(OWN_KEYS_COUNT)]

    async def run(self, operations_count: int) -> None:
        """Do a number of random operations, with pauses."""
        menu: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (34, self._put),
            (10, self._put_once),
            (6, self._churn),
            (20, self._get),
            (9, self._delete),
            (4, self._delete_many),
            (18, self._upload),
            (5, self._list),
        ]
        weights = [weight for weight, _ in menu]
        for _ in range(operations_count):
            await asyncio.sleep(self._rng.expovariate(1 / PAUSE_SECONDS_MEAN))
            (_, operation) = self._rng.choices(menu, weights)[0]
            self._book.operations_count += 1
            try:
                await operation()
            except WorkerDiedError:
                continue

    # -- choices ----------------------------------------------------------------------------

    def _store(self) -> node_store.NodeStore:
        self._worker = self._rng.choice(self._workers)
        return self._worker.store

    def _any_key(self) -> str:
        return self._rng.choice([*self._own, *self._own, self._rng.choice(SHARED_KEYS)])

    def _size_bytes(self) -> int:
        rng, stripe = self._rng, self._shape.stripe_bytes
        threshold = self._shape.journal_threshold_bytes
        choices = [
            0,
            rng.randrange(1, 200),
            rng.randrange(1, threshold),
            threshold - 1,
            threshold,
            rng.randrange(threshold, stripe),
            stripe,
            stripe + rng.randrange(1, threshold),
            2 * stripe + rng.randrange(stripe),
        ]
        return rng.choices(choices, [1, 3, 4, 1, 1, 3, 2, 2, 1])[0]

    def _body(self, version: int, size_bytes: int) -> SimulatedBody:
        data = oracle.content(version, size_bytes)
        if size_bytes and self._rng.random() < TRUNCATED_RATIO:
            data = data[: self._rng.randrange(size_bytes)]
        slow = self._rng.random() < SLOW_RATIO
        pause_seconds = self._rng.expovariate(1 / SLOW_SECONDS_MEAN) if slow else 0.0
        return SimulatedBody(data, announced_bytes=size_bytes, pause_seconds=pause_seconds)

    # -- writes -----------------------------------------------------------------------------

    async def _put(self) -> None:
        await self._put_to(self._any_key(), objects.NO_CONDITIONS)

    async def _put_once(self) -> None:
        if self._rng.random() < 0.3:
            self._book.once_keys_count += 1
        number = max(0, self._book.once_keys_count - 1 - self._rng.randrange(2))
        await self._put_to(f"once/{number:04}", FIRST_VERSION)

    async def _churn(self) -> None:
        """Overwrite a key again and again, so that whole groups and segments die, often under a
        read that has looked up one of the first versions."""
        key = self._any_key()
        if self._rng.random() < 0.5:
            await self._overwrite(key)
            return
        outcomes = await asyncio.gather(
            self._read_slowly(key), self._overwrite(key), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _read_slowly(self, key: str) -> None:
        pause = self._rng.expovariate(1 / node_shape.PLACES_KEPT_SECONDS)
        await self._served(self._book.read_key(self._store(), key, pause_seconds=pause))

    async def _overwrite(self, key: str) -> None:
        stripe = self._shape.stripe_bytes
        for _ in range(self._rng.randrange(4, 12)):
            size = self._rng.choice([stripe, stripe, 2 * stripe, self._size_bytes()])
            await self._put_to(key, objects.NO_CONDITIONS, size=size)

    async def _put_to(
        self, key: str, conditions: objects.WriteConditions, *, size: int | None = None
    ) -> None:
        version = self._judge.draw_version()
        size = self._size_bytes() if size is None else size
        request = objects.PutRequest(
            bucket=ledger.BUCKET, key=key, metadata={"version": str(version)}, conditions=conditions
        )
        write = self._judge.begin(key, version, size_bytes=size)
        store = self._store()
        found = await self._attempt([write], store.put_object(request, self._body(version, size)))
        if found is not None:
            self._check_record(found, write)
            if conditions is FIRST_VERSION:
                self._judge.win(write)
            self._judge.ack(write)

    async def _delete(self) -> None:
        key = self._any_key()
        write = self._judge.begin(key, oracle.ABSENT)
        send = functools.partial(
            self._store().delete_object,
            bucket=ledger.BUCKET,
            key=key,
            conditions=objects.NO_CONDITIONS,
        )
        if await self._attempt([write], _answered(send)):
            self._judge.ack(write, commits=False)

    async def _delete_many(self) -> None:
        keys = sorted({self._any_key() for _ in range(3)})
        writes = [self._judge.begin(key, oracle.ABSENT) for key in keys]
        send = functools.partial(
            self._store().delete_objects,
            bucket=ledger.BUCKET,
            doomed=[objects.Doomed(key=key) for key in keys],
        )
        if await self._attempt(writes, _answered(send)):
            for write in writes:
                self._judge.ack(write, commits=False)

    # -- uploads ----------------------------------------------------------------------------

    async def _upload(self) -> None:
        mine = [
            upload
            for upload in self._book.uploads
            if upload.client == self._number and not upload.doubtful
        ]
        if not mine:
            await self._create_upload()
            return
        upload = self._rng.choice(mine)
        step = self._rng.choices(
            [self._put_part, self._complete, self._abort], [6, 3 if upload.parts else 0, 1]
        )[0]
        await step(upload)

    async def _create_upload(self) -> None:
        version, key = self._judge.draw_version(), self._rng.choice(self._own)
        request = objects.PutRequest(
            bucket=ledger.BUCKET, key=key, metadata={"version": str(version)}
        )
        write = self._judge.begin(f"upload {version}", version)
        work = self._store().create_upload(request, checksum_algorithm="", checksum_type="")
        record = await self._attempt([write], work)
        if record is not None:
            self._judge.ack(write)
            upload = ledger.Upload(client=self._number, version=version, key=key, record=record)
            self._book.uploads.append(upload)

    async def _put_part(self, upload: ledger.Upload) -> None:
        number = self._rng.randrange(1, 5)
        version, size = self._judge.draw_version(), max(16, self._size_bytes())
        write = self._judge.begin(upload.part_register(number), version, size_bytes=size)
        work = self._store().put_part(
            upload.record, part_number=number, body=self._body(version, size)
        )
        upload.doubtful = True
        found = await self._attempt([write], work)
        if found is not None:
            assert (found.etag, found.size_bytes) == (oracle.etag_of(write), size)
            self._judge.ack(write)
            upload.parts[number] = write
        upload.doubtful = found is None and not write.refused

    async def _complete(self, upload: ledger.Upload) -> None:
        chosen = sorted(upload.parts)[: self._rng.randrange(1, 5)]
        writes = [upload.parts[number] for number in chosen]
        whole = self._judge.begin(
            upload.key,
            upload.version,
            size_bytes=sum(write.size_bytes for write in writes),
            part_sizes=tuple(write.size_bytes for write in writes),
            part_versions=tuple(write.version for write in writes),
        )
        end = self._judge.begin(upload.register, oracle.ABSENT)
        upload.completion, upload.removal, upload.doubtful = whole, end, True
        work = self._store().complete_upload(
            upload.record,
            parts=[
                objects.CompletedPart(number=number, etag=oracle.etag_of(write))
                for number, write in zip(chosen, writes, strict=True)
            ],
            conditions=objects.NO_CONDITIONS,
            expected=objects.ExpectedObject(size_bytes=whole.size_bytes),
        )
        record = await self._attempt([whole, end], work)
        if record is not None:
            self._check_record(record, whole)
            self._judge.ack(whole)
            self._judge.ack(end)
            self._book.uploads.remove(upload)

    async def _abort(self, upload: ledger.Upload) -> None:
        end = self._judge.begin(upload.register, oracle.ABSENT)
        upload.removal, upload.doubtful = end, True
        send = functools.partial(
            self._store().abort_upload,
            bucket=ledger.BUCKET,
            key=upload.key,
            upload_id=upload.record.upload_id,
        )
        if await self._attempt([end], _answered(send)):
            self._judge.ack(end)
            self._book.uploads.remove(upload)

    # -- reads ------------------------------------------------------------------------------

    async def _get(self) -> None:
        key = self._any_key()
        if self._rng.random() < 0.2:
            key = f"once/{self._rng.randrange(self._book.once_keys_count):04}"
        pause = self._rng.choice([0.0, 0.0, PAUSE_SECONDS_MEAN / 2, SLOW_SECONDS_MEAN])
        await self._served(self._book.read_key(self._store(), key, pause_seconds=pause))

    async def _list(self) -> None:
        started = self._judge.tick()
        query = objects.ListQuery(bucket=ledger.BUCKET, prefix=f"own/{self._number}/")
        page = await self._served(self._store().list_objects(query))
        shown = {record.key: record for record in page.objects}
        assert list(shown) == sorted(shown), "a listing is out of order"
        for key in self._own:
            self._book.observe_record(key, shown.get(key), started=started)

    # -- inside -----------------------------------------------------------------------------

    async def _attempt(
        self, writes: Sequence[oracle.Write], work: Coroutine[Any, Any, T]
    ) -> T | None:
        """The answer, or None after the oracle was told what is known without one."""
        started = self._judge.tick()
        try:
            patience = None
            if self._rng.random() < CANCELLED_RATIO:
                patience = self._rng.expovariate(1 / PAUSE_SECONDS_MEAN)
            return await self._served(work, patience_seconds=patience)
        except TimeoutError:
            return None  # Cancelled: it may still take effect, at any time of this life.
        except WorkerDiedError:
            for write in writes:
                self._judge.fail(write)
        except errors.PreconditionFailedError:
            for write in writes:
                self._judge.refuse_as_taken(write, started=started)
        except errors.ClientError:
            for write in writes:
                self._judge.refuse(write)
        except errors.CouchestorError as exc:
            if not self._book.errors_are_expected:
                raise AssertionError(f"refused although nothing is wrong: {exc!r}") from exc
            for write in writes:
                self._judge.fail(write)
        return None

    async def _served(
        self, work: Coroutine[Any, Any, T], *, patience_seconds: float | None = None
    ) -> T:
        """What the worker answers.

        Raises:
            WorkerDiedError: it died first; how far it came is not known.
            TimeoutError: the client went away before the answer.
        """
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        task = loop.create_task_of(self._worker, work)
        death = self._worker.death
        either: set[asyncio.Future[Any]] = {task, death}
        await asyncio.wait(either, timeout=patience_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not death.done():
            task.cancel()
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise WorkerDiedError
        if task.cancelled():
            raise TimeoutError
        return task.result()

    def _check_record(self, record: objects.ObjectRecord, write: oracle.Write) -> None:
        shown = (record.etag, record.size_bytes)
        assert shown == (oracle.etag_of(write), write.size_bytes), (record, write)


async def _answered(send: Callable[[], Awaitable[object]]) -> bool:
    await send()
    return True
