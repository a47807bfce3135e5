"""Who waits for room, for how long, and what is answered in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import stripe_node

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    group_commit,
    release,
    room_outlook,
    room_wait,
)
from couchestor_domain import errors, objects, units

FULL = errors.StoreFullError("no zone is free")
COMING = room_outlook.RoomOutlook(used_zones_count=10, live_bytes=100, is_coming=True)


class Store:
    """Time, and what an index would say."""

    def __init__(self) -> None:
        self.now_seconds = 0.0
        self.outlook = COMING
        self.looks_count = 0
        self.on_look: Callable[[], None] = lambda: None
        self.wait = room_wait.RoomWait(self.look, clock=self, seconds_max=20.0, poll_seconds=0.0)

    def monotonic_seconds(self) -> float:
        return self.now_seconds

    async def look(self) -> room_outlook.RoomOutlook:
        self.looks_count += 1
        self.on_look()
        return self.outlook


def refusing(store: Store, count: int, *, seconds: float) -> tuple[list[float], Callable[[], None]]:
    """An attempt that is refused ``count`` times, each after ``seconds``."""
    tried: list[float] = []

    def attempt() -> None:
        tried.append(store.now_seconds)
        store.now_seconds += seconds
        if len(tried) <= count:
            raise FULL

    return tried, attempt


async def waited(store: Store, attempt: Callable[[], None]) -> None:
    async def call() -> None:
        attempt()

    await store.wait.until_there_is(call)


async def test_a_write_goes_on_as_soon_as_there_is_room() -> None:
    store = Store()
    tried, attempt = refusing(store, 5, seconds=1.0)
    await waited(store, attempt)
    assert len(tried) == 6


async def test_nobody_waits_when_nothing_can_be_given_back() -> None:
    store = Store()
    store.outlook = COMING._replace(is_coming=False)
    tried, attempt = refusing(store, 1, seconds=1.0)
    with pytest.raises(errors.StoreFullError, match="no zone is free"):
        await waited(store, attempt)
    assert len(tried) == 1


async def test_a_wait_that_saw_zones_come_back_is_told_to_try_again() -> None:
    store = Store()
    _, attempt = refusing(store, 100, seconds=1.0)

    def moving() -> None:
        store.outlook = store.outlook._replace(live_bytes=store.outlook.live_bytes - 1)

    store.on_look = moving
    with pytest.raises(errors.OverloadedError, match="more slowly"):
        await waited(store, attempt)
    assert 20.0 <= store.now_seconds <= 23.0


async def test_after_a_wait_in_vain_nobody_waits_before_something_has_happened() -> None:
    store = Store()
    _, attempt = refusing(store, 100, seconds=1.0)
    with pytest.raises(errors.StoreFullError):
        await waited(store, attempt)
    assert store.now_seconds >= 20.0
    tried, attempt = refusing(store, 1, seconds=1.0)
    with pytest.raises(errors.StoreFullError):
        await waited(store, attempt)
    assert len(tried) == 1
    store.outlook = COMING._replace(used_zones_count=9)
    tried, attempt = refusing(store, 1, seconds=1.0)
    await waited(store, attempt)
    assert len(tried) == 2


async def test_many_that_wait_look_once() -> None:
    store = Store()
    attempts = [refusing(store, 3, seconds=0.0)[1] for _ in range(50)]
    await asyncio.gather(*(waited(store, attempt) for attempt in attempts))
    assert store.looks_count == 1


async def test_a_process_that_stops_ends_every_wait() -> None:
    store = Store()
    tried, attempt = refusing(store, 100, seconds=0.0)

    def stop() -> None:
        if len(tried) > 3:
            store.wait.end()

    store.on_look = stop
    store.now_seconds = 0.0

    def passing() -> None:
        store.now_seconds += room_wait.LOOK_SECONDS
        attempt()

    with pytest.raises(errors.StoreFullError):
        await waited(store, passing)
    assert store.now_seconds < 20.0


# -- the group commit ---------------------------------------------------------------------------


class Log:
    """Commits what it is given, once there is room."""

    def __init__(self) -> None:
        self.has_room = False
        self.batches: list[list[commit_log.Operation]] = []

    async def commit(self, gather: commit_log.Gather) -> None:
        await asyncio.sleep(0)
        batch = list(gather())
        self.batches.append(batch)
        for operation in batch:
            if operation.uses_reserve or self.has_room:
                operation.result = "done"
            else:
                operation.error, operation.lacks_room = FULL, True


def nothing(_: index_port.IndexWriter, __: commit_log.Placement) -> None:
    """An operation that is not carried out here."""


async def test_a_refused_commit_is_tried_again_and_what_needs_no_room_overtakes_it() -> None:
    store, log = Store(), Log()
    commits = group_commit.GroupCommit(log.commit, store.wait)
    ended: list[str] = []
    put = asyncio.ensure_future(
        commits.submit(commit_log.Operation(nothing, on_end=lambda: ended.append("put")))
    )
    delete = commit_log.Operation(nothing, uses_reserve=True, on_end=lambda: ended.append("delete"))
    assert await commits.submit(delete) == "done"
    assert ended == ["delete"]
    assert not put.done()
    log.has_room = True
    assert await put == "done"
    assert ended == ["delete", "put"]


async def test_a_commit_that_waits_in_vain_ends_once_with_its_error() -> None:
    store, log = Store(), Log()
    store.outlook = COMING._replace(is_coming=False)
    commits = group_commit.GroupCommit(log.commit, store.wait)
    ended: list[str] = []
    operation = commit_log.Operation(nothing, on_end=lambda: ended.append("put"))
    with pytest.raises(errors.StoreFullError):
        await commits.submit(operation)
    assert ended == ["put"]
    assert len(log.batches) == 1


async def test_a_commit_nobody_awaits_any_more_does_not_wait_for_room() -> None:
    store, log = Store(), Log()
    commits = group_commit.GroupCommit(log.commit, store.wait)
    ended = asyncio.Event()
    put = asyncio.ensure_future(commits.submit(commit_log.Operation(nothing, on_end=ended.set)))
    await asyncio.sleep(0)
    put.cancel()
    await asyncio.wait_for(ended.wait(), 5)
    await commits.drain()
    assert len(log.batches) == 1


async def test_a_stop_answers_what_waits() -> None:
    store, log = Store(), Log()
    commits = group_commit.GroupCommit(log.commit, store.wait)
    put = asyncio.ensure_future(commits.submit(commit_log.Operation(nothing)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.batches
    await commits.drain()
    with pytest.raises(errors.StoreFullError):
        await put


# -- the outlook --------------------------------------------------------------------------------


async def filled_up(node: stripe_node.StripeNode) -> list[str]:
    """Keys of all objects that there was room for."""
    for number in range(1000):
        try:
            await node.put(f"{number}", bytes(64 * units.KIB))
        except errors.StoreFullError:
            return [f"{each}" for each in range(number)]
    raise AssertionError("the store is never full")


async def test_an_empty_or_half_dead_group_is_room_and_a_full_one_is_not() -> None:
    node = stripe_node.StripeNode(zone_bytes=256 * units.KIB)
    await node.make_bucket()

    def outlook(zone_bytes: int = 256 * units.KIB) -> room_outlook.RoomOutlook:
        with node.index.read() as reader:
            return room_outlook.look(reader, zone_capacity_bytes=zone_bytes)

    assert not outlook().is_coming
    number = 0
    while all(each.state == media_records.ZoneSetState.OPEN for each in node.group_records()):
        await node.put(f"{number}", bytes(64 * units.KIB))
        await node.settled()
        number += 1
    # As if the headers of such small stripes took no room.
    filled = zone_header.ZONE_HEADER_BYTES + outlook().live_bytes // 4
    assert not outlook(filled).is_coming, "everything in the sealed group is alive"
    for each in range(2):
        await node.store.delete_object(
            bucket=stripe_node.BUCKET, key=f"{each}", conditions=objects.NO_CONDITIONS
        )
    assert outlook(filled).is_coming


async def test_a_stripe_waits_until_a_group_was_released(monkeypatch: pytest.MonkeyPatch) -> None:
    node = stripe_node.StripeNode(zone_bytes=256 * units.KIB, zone_count=4)

    async def look() -> room_outlook.RoomOutlook:
        with node.index.read() as reader:
            return room_outlook.look(reader, zone_capacity_bytes=256 * units.KIB)

    await node.make_bucket()
    keys = await filled_up(node)
    room = room_wait.RoomWait(look, clock=node, poll_seconds=0.0)
    monkeypatch.setattr(node.groups, "_room", room)
    for key in keys:
        await node.store.delete_object(
            bucket=stripe_node.BUCKET, key=key, conditions=objects.NO_CONDITIONS
        )
    await node.settled()

    async def here(function: Callable[..., object], *args: object) -> object:
        return function(*args)

    releasing = release.Release(
        index=node.index,
        media=node.media,
        submit=node.commits.submit,
        publisher=node,
        run_blocking=here,
        clock=node,
        trusted=lambda: None,
        grace_seconds=5.0,
    )
    node.now_seconds += room_wait.LOOK_SECONDS
    put = asyncio.ensure_future(node.put("again", bytes(64 * units.KIB)))
    for _ in range(20):
        await asyncio.sleep(0)
        await releasing.step()
    assert not put.done()
    node.now_seconds += 5.0
    await releasing.step()
    await put
