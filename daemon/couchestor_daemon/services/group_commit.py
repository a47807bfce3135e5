"""Batching: concurrent requests of one process share a commit.

While one batch is being made durable the next one gathers; nothing waits on a timer. What goes into
a batch is decided on the commit thread, once it holds the node's write lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from couchestor_daemon.services import commit_log, room_wait
from couchestor_domain import errors, units

logger = logging.getLogger(__name__)

OPERATIONS_PER_BATCH_MAX: Final = 128
PAYLOAD_PER_BATCH_BYTES_MAX: Final = 2 * units.MIB
QUEUED_OPERATIONS_MAX: Final = 4096

RunCommit = Callable[[commit_log.Gather], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Queued:
    operation: commit_log.Operation
    future: asyncio.Future[object]
    waiting: room_wait.Waiting | None = None
    """For room, since it was refused first."""

    def answer(self, error: BaseException | None) -> None:
        """Tell whoever still awaits it."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.operation.result)

    def end(self) -> None:
        """Not where the result is awaited: that may have been cancelled long ago."""
        if self.operation.on_end is not None:
            self.operation.on_end()


class GroupCommit:
    """Queues operations and commits them in batches, one batch at a time.

    Args:
        run_commit: Runs ``CommitLog.commit_gathered`` on the one commit thread.
        room: How long operations wait for a zone; without it they do not.
    """

    def __init__(self, run_commit: RunCommit, room: room_wait.RoomWait | None = None) -> None:
        self._run_commit = run_commit
        self._room = room
        self._queue: deque[_Queued] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        """For each refused operation that is tried again."""

    async def submit(self, operation: commit_log.Operation) -> object:
        """Commit an operation and return its result.

        Cancellation: the operation may still take effect; its outcome is then unknown to the
        caller, as after a lost connection.

        Raises:
            OverloadedError: too many operations are waiting, or it waited for a zone for too long.
            CouchestorError: whatever the operation or the log raised.
        """
        if len(self._queue) + len(self._waiting) >= QUEUED_OPERATIONS_MAX:
            if operation.on_end is not None:
                operation.on_end()
            raise errors.OverloadedError(
                f"{len(self._queue) + len(self._waiting)} writes are waiting for the log; "
                "try again later"
            )
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._append(_Queued(operation, future))
        return await future

    def _append(self, queued: _Queued) -> None:
        self._queue.append(queued)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch: list[_Queued] = []

                def gather(into: list[Any] = batch) -> list[commit_log.Operation]:
                    into.extend(self._next_batch())
                    return [queued.operation for queued in into]

                failure: BaseException | None = None
                try:
                    await self._run_commit(gather)
                except Exception as exc:
                    logger.exception("a commit failed in an unforeseen way")
                    failure = exc
                    if not batch:
                        gather()
                ended = [queued for queued in batch if not self._waits(queued)]
                for queued in ended:
                    queued.answer(failure or queued.operation.error)
                for queued in ended:
                    queued.end()
        finally:
            self._worker = None

    def _waits(self, queued: _Queued) -> bool:
        """Whether a refused operation is tried again; nobody waits for one without an asker."""
        operation, error = queued.operation, queued.operation.error
        if (
            self._room is None
            or not (operation.lacks_room and operation.waits_for_room)
            or not isinstance(error, errors.StoreFullError)
            or queued.future.cancelled()
        ):
            return False
        task = asyncio.get_running_loop().create_task(self._try_again(queued, self._room, error))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return True

    async def _try_again(
        self, queued: _Queued, room: room_wait.RoomWait, cause: errors.StoreFullError
    ) -> None:
        try:
            queued.waiting = await room.patience(queued.waiting, cause)
        except errors.CouchestorError as exc:
            queued.answer(exc)
            queued.end()
            return
        await asyncio.sleep(room.poll_seconds)
        queued.operation.error, queued.operation.lacks_room = None, False
        self._append(queued)

    # On the commit thread while the loop appends: a deque's ends are safe for that.
    def _next_batch(self) -> list[_Queued]:
        batch: list[_Queued] = []
        payload_bytes = 0
        while self._queue and len(batch) < OPERATIONS_PER_BATCH_MAX:
            payload_bytes += len(self._queue[0].operation.payload)
            if batch and payload_bytes > PAYLOAD_PER_BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def drain(self) -> None:
        """Wait until everything submitted so far has been answered; nobody waits for room then."""
        if self._room is not None:
            self._room.end()
        while tasks := [*([self._worker] if self._worker else []), *self._waiting]:
            await asyncio.wait(tasks)
