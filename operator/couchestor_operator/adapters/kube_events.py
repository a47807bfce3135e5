"""Domain events as Kubernetes Events, told by the way: lost rather than waited for."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final

from couchestor_domain import errors, events
from couchestor_operator.adapters import kube_api
from couchestor_operator.ports import clock
from couchestor_operator.resources import event_document

_LOG = logging.getLogger(__name__)

WAITING_COUNT_MAX: Final = 1000
IDLE_SECONDS: Final = 60.0
TURN_SECONDS_MAX: Final = 3 * IDLE_SECONDS
KIND: Final = kube_api.Kind(
    group=event_document.GROUP,
    version=event_document.VERSION,
    plural=event_document.PLURAL,
    namespace=event_document.NAMESPACE,
)


class KubeEvents:
    """Implements ``EventPublisher``; ``run`` writes what was published, one after the other.

    Published from the event loop's thread only.

    Args:
        instance: Which operator tells it.
    """

    def __init__(self, api: kube_api.KubeApi, time: clock.Clock, *, instance: str) -> None:
        self._api = api
        self._time = time
        self._instance = instance
        self._waiting: asyncio.Queue[dict[str, object]] = asyncio.Queue(WAITING_COUNT_MAX)
        self.dropped_count = 0

    def publish(self, event: events.DomainEvent) -> None:
        """See the port."""
        document = event_document.document_of(
            event,
            name=f"couchestor-{uuid.uuid4().hex}",
            instance=self._instance,
            now_seconds=self._time.now_seconds(),
        )
        if document is None:
            return
        try:
            self._waiting.put_nowait(document)
        except asyncio.QueueFull:
            self.dropped_count += 1

    async def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Until it is cancelled. An Event that is refused is told of in the log and left out.

        Args:
            beat: Called at least once in ``TURN_SECONDS_MAX``, whether or not there is any.
        """
        while True:
            beat()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    document = await self._waiting.get()
            except TimeoutError:
                continue
            try:
                await self._api.create(KIND, document)
            except errors.TransientError as exc:
                self.dropped_count += 1
                _LOG.warning("an Event was not written: %s", exc)
            finally:
                self._waiting.task_done()

    async def drain(self) -> None:
        """Until all that was published has been written or dropped; ``run`` must go on."""
        await self._waiting.join()
