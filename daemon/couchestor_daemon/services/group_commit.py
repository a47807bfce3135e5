"""Batching: concurrent requests of one process share a commit.

While one batch is being made durable the next one gathers; nothing waits on a timer. What goes into
a batch is decided on the commit thread, once it holds the node's write lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from couchestor_daemon.services import commit_log
from couchestor_domain import errors, units

logger = logging.getLogger(__name__)

OPERATIONS_PER_BATCH_MAX: Final = 128
PAYLOAD_PER_BATCH_BYTES_MAX: Final = 2 * units.MIB
QUEUED_OPERATIONS_MAX: Final = 4096

RunCommit = Callable[[commit_log.Gather], Awaitable[None]]


class GroupCommit:
    """Queues operations and commits them in batches, one batch at a time.

    Args:
        run_commit: Runs ``CommitLog.commit_gathered`` on the one commit thread.
    """

    def __init__(self, run_commit: RunCommit) -> None:
        self._run_commit = run_commit
        self._queue: deque[tuple[commit_log.Operation, asyncio.Future[object]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, operation: commit_log.Operation) -> object:
        """Commit an operation and return its result.

        Cancellation: the operation may still take effect; its outcome is then unknown to the
        caller, as after a lost connection.

        Raises:
            OverloadedError: too many operations are waiting.
            CouchestorError: whatever the operation or the log raised.
        """
        if len(self._queue) >= QUEUED_OPERATIONS_MAX:
            if operation.on_end is not None:
                operation.on_end()
            raise errors.OverloadedError(
                f"{len(self._queue)} writes are waiting for the log; try again later"
            )
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queue.append((operation, future))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch: list[tuple[commit_log.Operation, asyncio.Future[object]]] = []

                def gather(into: list[Any] = batch) -> list[commit_log.Operation]:
                    into.extend(self._next_batch())
                    return [operation for operation, _ in into]

                failure: BaseException | None = None
                try:
                    await self._run_commit(gather)
                except Exception as exc:
                    logger.exception("a commit failed in an unforeseen way")
                    failure = exc
                    if not batch:
                        gather()
                for operation, future in batch:
                    if future.done():
                        continue
                    error = failure or operation.error
                    if error is not None:
                        future.set_exception(error)
                    else:
                        future.set_result(operation.result)
                # Here, not where the result is awaited: that may have been cancelled long ago.
                for operation, _ in batch:
                    if operation.on_end is not None:
                        operation.on_end()
        finally:
            self._worker = None

    # On the commit thread while the loop appends: a deque's ends are safe for that.
    def _next_batch(self) -> list[tuple[commit_log.Operation, asyncio.Future[object]]]:
        batch: list[tuple[commit_log.Operation, asyncio.Future[object]]] = []
        payload_bytes = 0
        while self._queue and len(batch) < OPERATIONS_PER_BATCH_MAX:
            payload_bytes += len(self._queue[0][0].payload)
            if batch and payload_bytes > PAYLOAD_PER_BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def drain(self) -> None:
        """Wait until everything submitted so far has been answered."""
        while (worker := self._worker) is not None:
            await asyncio.wait([worker])
