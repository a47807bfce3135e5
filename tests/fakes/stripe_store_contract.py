"""What holds for every ``StripeStore``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import pytest

from couchestor_domain import errors, geometry, ids
from couchestor_domain.node_api import assignment
from couchestor_operator.control import stripe_group
from couchestor_operator.ports import stripe_store

WRITER_NODE: Final = "storage-1.example"
_numbers: Final = itertools.count()


class Harness(Protocol):
    """A store, and what people do to it."""

    @property
    def store(self) -> stripe_store.StripeStore:
        """What is held to the contract."""
        ...

    async def shows(self, group: stripe_group.StripeGroup) -> None:
        """Return once the store shows that version of a group, or a later one."""
        ...

    async def shows_none(self, name: str) -> None:
        """Return once the store shows no group of that name."""
        ...

    async def annotate(self, name: str, key: str, value: str) -> None:
        """People write an annotation."""
        ...

    async def delete(self, name: str) -> None:
        """People delete one."""
        ...

    async def make_others(self, name: str) -> None:
        """People make an ECStripe that is of no node's writer."""
        ...


def new_group() -> stripe_group.StripeGroup:
    """A group that is not there, of three shards."""
    writer = f"writer-{next(_numbers)}"
    return stripe_group.made(
        writer_node=WRITER_NODE,
        writer=writer,
        stripe_id=7,
        policy="cold",
        coding=geometry.StripeGeometry(2, 1),
        places=tuple(
            assignment.ShardPlace(
                node=f"storage-{index}",
                device_id=ids.DeviceId(f"{index:032x}"),
                offset_bytes=index * 4096,
                size_bytes=1 << 20,
            )
            for index in range(3)
        ),
    )


HEALTHY: Final = stripe_group.ShardHealth.HEALTHY
MISSING: Final = stripe_group.ShardHealth.MISSING

TOLD: Final = stripe_group.Told(
    state=stripe_group.State.DEGRADED,
    shards=(HEALTHY, None, MISSING),
    errors=("", "", "node storage-2 is lost"),
    holds_data=True,
    handed_generation=1,
)


def moved(group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
    """The same with another place for its last shard."""
    place = dataclasses.replace(group.places[2], node="storage-9", offset_bytes=0)
    return dataclasses.replace(
        group,
        places=(*group.places[:2], place),
        generation=group.generation + 1,
        moved_shards=frozenset({2}),
    )


async def _one(harness: Harness, name: str) -> stripe_group.StripeGroup:
    (found,) = [group for group in await harness.store.every() if group.name == name]
    return found


async def a_group_that_was_made_is_read_back_whole(harness: Harness) -> None:
    group = new_group()
    assert not await harness.store.is_there(group.name)
    made = await harness.store.make(group)
    assert made.version
    assert dataclasses.replace(made, version="") == group
    assert await harness.store.is_there(group.name)
    await harness.shows(made)
    assert await _one(harness, group.name) == made


async def a_group_is_made_once(harness: Harness) -> None:
    group = new_group()
    await harness.store.make(group)
    with pytest.raises(errors.VersionConflictError):
        await harness.store.make(group)


async def what_is_told_is_read_back_and_leaves_places_as_they_are(harness: Harness) -> None:
    made = await harness.store.make(new_group())
    told = await harness.store.tell(made, TOLD)
    assert told == dataclasses.replace(made, version=told.version, told=TOLD)
    assert told.version != made.version
    await harness.shows(told)
    assert await _one(harness, made.name) == told


async def places_are_moved_and_what_was_told_stays(harness: Harness) -> None:
    told = await harness.store.tell(await harness.store.make(new_group()), TOLD)
    there = await harness.store.move(moved(told))
    assert dataclasses.replace(there, version=told.version) == moved(told)
    await harness.shows(there)
    assert await _one(harness, told.name) == there
    again = dataclasses.replace(TOLD, state=stripe_group.State.HEALTHY, errors=("", "", ""))
    again = dataclasses.replace(again, shards=(HEALTHY,) * 3, handed_generation=2)
    last = await harness.store.tell(there, again)
    assert (last.told, last.generation) == (again, 2)


async def a_write_on_an_old_version_is_refused_and_changes_nothing(harness: Harness) -> None:
    made = await harness.store.make(new_group())
    now = await harness.store.tell(made, TOLD)
    for _ in range(2):
        with pytest.raises(errors.VersionConflictError):
            await harness.store.tell(made, TOLD)
        with pytest.raises(errors.VersionConflictError):
            await harness.store.move(moved(made))
        # Whether or not what is at hand shows the newer one by now.
        await harness.shows(now)
    assert await _one(harness, made.name) == now


async def an_edit_by_people_is_a_new_version_and_stays(harness: Harness) -> None:
    made = await harness.store.make(new_group())
    await harness.annotate(made.name, "example.com/note", "keep me")
    with pytest.raises(errors.VersionConflictError):
        await harness.store.tell(made, TOLD)


async def what_is_gone_is_of_no_version(harness: Harness) -> None:
    made = await harness.store.make(new_group())
    await harness.shows(made)
    await harness.delete(made.name)
    for write in (harness.store.tell(made, TOLD), harness.store.move(moved(made))):
        with pytest.raises(errors.VersionConflictError):
            await write
    await harness.shows_none(made.name)
    assert not await harness.store.is_there(made.name)


async def what_is_of_no_node_s_writer_is_none_of_ours(harness: Harness) -> None:
    name = f"others-{next(_numbers)}"
    await harness.make_others(name)
    made = await harness.store.make(new_group())
    await harness.shows(made)
    assert name not in {group.name for group in await harness.store.every()}
    assert await harness.store.is_there(name)


Check = Callable[[Harness], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    a_group_that_was_made_is_read_back_whole,
    a_group_is_made_once,
    what_is_told_is_read_back_and_leaves_places_as_they_are,
    places_are_moved_and_what_was_told_stays,
    a_write_on_an_old_version_is_refused_and_changes_nothing,
    an_edit_by_people_is_a_new_version_and_stays,
    what_is_gone_is_of_no_version,
    what_is_of_no_node_s_writer_is_none_of_ours,
)
