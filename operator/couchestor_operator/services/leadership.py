"""Does work only while this process holds the Lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from couchestor_domain import errors
from couchestor_operator.control import election
from couchestor_operator.ports import clock, lease_store, monotonic_clock

_LOG = logging.getLogger(__name__)


class Leadership:
    """One candidate: waits for the Lease, lets work run while it holds it, stops it in time.

    Args:
        since_boot: Must count while the machine sleeps, too.
    """

    def __init__(
        self,
        *,
        identity: str,
        terms: election.Terms,
        leases: lease_store.LeaseStore,
        since_boot: monotonic_clock.MonotonicClock,
        time: clock.Clock,
    ) -> None:
        self._identity = identity
        self._terms = terms
        self._leases = leases
        self._since_boot = since_boot
        self._time = time
        self._candidate = election.Candidate(identity, terms)

    def is_held(self) -> bool:
        """Whether work may act at this moment. Asked before each write, it needs no timer."""
        return self._candidate.is_acting(self._since_boot.monotonic_seconds())

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let ``work`` run whenever the Lease is held, until it returns or raises by itself.

        It is cancelled when the Lease is lost or cannot be renewed in time, and begun anew with
        the next one. When all is over, also by cancellation, the Lease is given back, so that
        others need not wait for its end.
        """
        try:
            while not await self._led(work):
                _LOG.warning("%s does not hold the lease any more: stopped", self._identity)
        finally:
            await self._resign()

    async def _led(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Wait for the Lease and keep it. Returns: whether the work ended by itself."""
        while not self.is_held():
            wait_seconds = await self._try_within(self._terms.act_seconds)
            if not self.is_held():
                await asyncio.sleep(wait_seconds)
        _LOG.info("%s holds the lease", self._identity)
        worker = asyncio.ensure_future(work())
        try:
            await self._keep(worker)
        finally:
            ended = worker.done()
            worker.cancel()
            # Whatever it does on its way out, it is over before anything else happens here.
            await asyncio.wait([worker])
        if ended:
            worker.result()
        elif not worker.cancelled() and (raised := worker.exception()) is not None:
            raise raised
        return ended

    async def _keep(self, worker: asyncio.Future[None]) -> None:
        """Renew until the work has ended or the time to act is over."""
        while (left_seconds := self._left_seconds()) > 0:
            await asyncio.wait([worker], timeout=min(self._terms.renew_seconds, left_seconds))
            left_seconds = self._left_seconds()
            if worker.done() or left_seconds <= 0:
                return
            await self._try_within(left_seconds)

    def _left_seconds(self) -> float:
        return self._candidate.acts_until_seconds - self._since_boot.monotonic_seconds()

    async def _try_within(self, seconds: float) -> float:
        """Claim or renew once. Returns: how long to wait before the next time, if it failed."""
        try:
            async with asyncio.timeout(seconds):
                return await self._try()
        except TimeoutError:
            _LOG.warning("the lease was not answered for within %.1f s", seconds)
        except errors.VersionConflictError as exc:
            self._candidate.refused()
            _LOG.info("the lease was written by another one: %s", exc)
        except errors.TransientError as exc:
            _LOG.warning("the lease cannot be reached: %s", exc)
        return self._terms.renew_seconds

    async def _try(self) -> float:
        claim = self._candidate.renewal(wall_seconds=self._time.now_seconds())
        if claim is None:
            seen = await self._leases.read()
            verdict = self._candidate.seen(
                seen,
                now_seconds=self._since_boot.monotonic_seconds(),
                wall_seconds=self._time.now_seconds(),
            )
            if isinstance(verdict, election.Wait):
                return verdict.seconds
            claim = verdict
        sent_at_seconds = self._since_boot.monotonic_seconds()
        written = await self._leases.write(claim.lease)
        self._candidate.accepted(written, sent_at_seconds=sent_at_seconds)
        return 0.0

    async def _resign(self) -> None:
        claim = self._candidate.resignation(wall_seconds=self._time.now_seconds())
        if claim is None:
            return
        try:
            async with asyncio.timeout(self._terms.renew_seconds):
                await self._leases.write(claim.lease)
        except (TimeoutError, errors.TransientError) as exc:
            _LOG.info("the lease was not given back, and ends by itself: %s", exc)
