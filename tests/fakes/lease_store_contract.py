"""What every ``ports.lease_store.LeaseStore`` must do, as checks over one whose Lease is not there.

Run over the one in memory in ``tests/contracts``, and over a real API server in ``tests/kube``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import pytest

from couchestor_domain import errors
from couchestor_operator.control import election
from couchestor_operator.ports import lease_store

LEASE: Final = election.Lease(
    holder="operator-a",
    lease_seconds=15,
    # Whole seconds, of which some notations leave out the fraction.
    acquired_seconds=1_700_000_000.0,
    renewed_seconds=1_700_000_000.25,
    transitions_count=3,
)


class DeletableLeases(lease_store.LeaseStore, Protocol):
    """A store, and people who take its Lease away."""

    def delete(self) -> None:
        """Have it be gone."""
        ...


async def a_lease_is_read_back_as_it_was_made(store: DeletableLeases) -> None:
    assert await store.read() is None
    made = await store.write(LEASE)
    assert made.version
    assert await store.read() == made
    assert dataclasses.replace(made, version="") == LEASE


async def every_write_is_a_new_version_and_names_the_last_one(
    store: DeletableLeases,
) -> None:
    made = await store.write(LEASE)
    renewed = await store.write(dataclasses.replace(made, renewed_seconds=1_700_000_002.0))
    assert renewed.version != made.version
    with pytest.raises(errors.VersionConflictError):
        await store.write(dataclasses.replace(made, holder="operator-b"))
    assert await store.read() == renewed


async def a_lease_is_made_once(store: DeletableLeases) -> None:
    made = await store.write(LEASE)
    with pytest.raises(errors.VersionConflictError):
        await store.write(dataclasses.replace(LEASE, holder="operator-b"))
    assert await store.read() == made


async def a_lease_that_is_not_there_is_of_no_version(store: DeletableLeases) -> None:
    gone = await store.write(LEASE)
    store.delete()
    with pytest.raises(errors.VersionConflictError):
        await store.write(gone)
    assert await store.read() is None
    made = await store.write(dataclasses.replace(LEASE, holder="operator-b"))
    with pytest.raises(errors.VersionConflictError):
        await store.write(gone)
    assert await store.read() == made


async def a_lease_can_be_held_by_nobody(store: DeletableLeases) -> None:
    made = await store.write(LEASE)
    freed = await store.write(dataclasses.replace(made, holder=""))
    assert freed.holder == ""
    assert await store.read() == freed


Check = Callable[[DeletableLeases], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    a_lease_is_read_back_as_it_was_made,
    every_write_is_a_new_version_and_names_the_last_one,
    a_lease_is_made_once,
    a_lease_that_is_not_there_is_of_no_version,
    a_lease_can_be_held_by_nobody,
)
