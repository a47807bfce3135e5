"""What limits the rate of requests of a tenant and of a user, over all workers of a node."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

from couchestor_daemon.adapters import rate_board
from couchestor_daemon.formats import identity_records
from couchestor_domain import request_rates
from couchestor_gateway.ports import credentials


class Limiter:
    """Makes what admits requests, by the board of the run.

    Args:
        folder: Of files that processes of a run share.

    Raises:
        IndexFullError: no room for the board; asked for at the first limit.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def admit(
        self, tenant: identity_records.StoredRate, user: identity_records.StoredRate
    ) -> credentials.Admit:
        """What takes a request out of the buckets of both."""
        limits = _limits(tenant, user)
        return functools.partial(self._board.take, limits)

    @functools.cached_property
    def _board(self) -> rate_board.RateBoard:
        # Most nodes limit nobody, and need none.
        return rate_board.RateBoard(self._folder)


def _limits(*rates: identity_records.StoredRate) -> Sequence[rate_board.Limit]:
    return sorted(
        rate_board.Limit(slot, request_rates.Rate(per_second, burst))
        for slot, per_second, burst in filter(None, rates)
    )
