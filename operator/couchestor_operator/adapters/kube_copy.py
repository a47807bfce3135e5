"""All documents of one kind at hand: listed once, then kept up by what the API server tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api
from couchestor_operator.ports import monotonic_clock

_LOG = logging.getLogger(__name__)

WATCH_SECONDS: Final = 240
AGE_SECONDS_MAX: Final = 180.0
"""Longer than a server that has nothing to tell keeps quiet: it says so about once a minute."""
RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0
TURN_SECONDS_MAX: Final = 2 * WATCH_SECONDS + RETRY_SECONDS_MAX
"""A list of many pages, a watch and the wait after it, with time to spare."""


class KubeCopy:
    """Documents of a kind, by name. ``run`` keeps them up; they are read on the same event loop."""

    def __init__(
        self, api: kube_api.KubeApi, kind: kube_api.Kind, clock: monotonic_clock.MonotonicClock
    ) -> None:
        self._api = api
        self._kind = kind
        self._clock = clock
        self._documents: dict[str, kube_api.Document] = {}
        self._version = ""
        """From which a watch goes on; empty: list first."""
        self._heard_at_seconds = float("-inf")
        self._changed = asyncio.Event()
        self._listed = asyncio.Event()

    def at_hand(self) -> Mapping[str, kube_api.Document]:
        """What is known; a copy that the caller must not change.

        Raises:
            KubernetesApiError: nothing has been heard of the server for ``AGE_SECONDS_MAX``.
        """
        age_seconds = self._clock.monotonic_seconds() - self._heard_at_seconds
        if age_seconds > AGE_SECONDS_MAX:
            raise errors.KubernetesApiError(
                f"nothing has been heard of {self._kind.plural} for "
                f"{AGE_SECONDS_MAX:g} s: look at the connection to the Kubernetes API"
            )
        return self._documents

    async def heard(self) -> None:
        """Wait until something is at hand for the first time."""
        await self._listed.wait()

    async def change(self) -> None:
        """Wait until something has changed since this was last waited for."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Until it is cancelled. What fails is tried again, ever later.

        Args:
            beat: Called at least once in ``TURN_SECONDS_MAX``, whether or not anything is heard.
        """
        wait_seconds = RETRY_SECONDS_MIN
        while True:
            beat()
            try:
                if not self._version:
                    await self._list()
                await self._follow()
                wait_seconds = RETRY_SECONDS_MIN
            except errors.KubernetesApiError as exc:
                if exc.context.get("status") == 410:
                    # Others may have changed what this watch will never tell.
                    self._version = ""
                _LOG.warning(
                    "%s are not kept up for %g s: %s", self._kind.plural, wait_seconds, exc
                )
                await asyncio.sleep(max(wait_seconds, exc.retry_after_seconds))
                wait_seconds = min(wait_seconds * 2, RETRY_SECONDS_MAX)

    async def _list(self) -> None:
        listing = await self._api.listed(self._kind)
        self._documents = {each["metadata"]["name"]: each for each in listing.documents}
        self._heard(listing.version)
        self._listed.set()
        self._changed.set()

    async def _follow(self) -> None:
        changes = self._api.watched(self._kind, since=self._version, seconds=WATCH_SECONDS)
        try:
            async for change in changes:
                self._heard(change.version)
                if change.document is None:
                    continue
                name = change.document["metadata"]["name"]
                if change.is_gone:
                    self._documents.pop(name, None)
                else:
                    self._documents[name] = change.document
                self._changed.set()
        finally:
            await changes.aclose()

    def _heard(self, version: str) -> None:
        self._version = version
        self._heard_at_seconds = self._clock.monotonic_seconds()
