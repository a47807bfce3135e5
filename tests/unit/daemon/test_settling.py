"""A group is sealed only when every commit that refers to a stripe of it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
import stripe_node

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    commit_log,
    group_commit,
    stripe_assembly,
    stripe_groups,
    writer_slots,
)
from couchestor_domain import errors, ids, objects, units

OPEN = int(media_records.ZoneSetState.OPEN)
SEALED = int(media_records.ZoneSetState.SEALED)
STRIPE = stripe_node.STRIPE_BYTES


@pytest.fixture
async def node() -> stripe_node.StripeNode:
    made = stripe_node.StripeNode()
    await made.make_bucket()
    return made


async def write_stripe(node: stripe_node.StripeNode) -> stripe_groups.StripePlace:
    stripe = stripe_assembly.StripeBuffer(node.pool, stripe_node.WANTED, STRIPE)
    try:
        return await node.groups.write_stripe(stripe, extent_address=ids.ExtentAddress(1 << 20))
    finally:
        stripe.release()


async def close_group(node: stripe_node.StripeNode) -> None:
    """Fill the open group and settle what fills it, so that only the rest keeps it open."""
    first = node.group_records()[0].group_id
    while (place := await write_stripe(node)).group_id == first:
        node.groups.settle(place)
    node.groups.settle(place)
    await node.settled()


async def state_of_first(node: stripe_node.StripeNode) -> int:
    await node.settled()
    return node.group_records()[0].state


async def put(
    node: stripe_node.StripeNode, body: stripe_node.Body, bucket: str = stripe_node.BUCKET
) -> objects.ObjectRecord:
    request = objects.PutRequest(bucket=bucket, key="k")
    return await node.store.put_object(request, body)


async def test_a_full_group_stays_open_until_its_last_stripe_is_settled(
    node: stripe_node.StripeNode,
) -> None:
    places = [await write_stripe(node), await write_stripe(node)]
    await close_group(node)
    assert await state_of_first(node) == OPEN
    node.groups.settle(places[0])
    assert await state_of_first(node) == OPEN
    node.groups.settle(places[1])
    assert await state_of_first(node) == SEALED


async def test_an_answered_upload_is_settled(node: stripe_node.StripeNode) -> None:
    await node.put("k", bytes(3 * STRIPE))
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_a_long_upload_keeps_open_every_group_it_has_written_to(
    node: stripe_node.StripeNode,
) -> None:
    body = stripe_node.Body(bytes(3 * STRIPE))
    body.hold_at = STRIPE
    uploading = asyncio.ensure_future(put(node, body))
    await asyncio.sleep(0.01)
    await close_group(node)
    assert await state_of_first(node) == OPEN
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert await state_of_first(node) == SEALED


async def test_a_cancelled_request_is_settled_by_the_end_of_its_commit(
    node: stripe_node.StripeNode,
) -> None:
    await node.put("first", bytes(STRIPE))  # Opens the group and takes the lease.
    node.hold_commits = asyncio.Event()
    uploading = asyncio.ensure_future(put(node, stripe_node.Body(bytes(3 * STRIPE))))
    await asyncio.sleep(0.01)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert len(node.groups._unsettled) == 3, "the commit goes on and refers to them"
    node.hold_commits.set()
    await close_group(node)
    assert await state_of_first(node) == SEALED
    record = await node.store.get_object(bucket=stripe_node.BUCKET, key="k")
    assert record.size_bytes == 3 * STRIPE


async def test_a_refused_commit_is_settled(node: stripe_node.StripeNode) -> None:
    with pytest.raises(errors.NoSuchBucketError):
        await put(node, stripe_node.Body(bytes(2 * STRIPE)), bucket="gone")
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_a_commit_that_is_not_even_queued_is_settled(
    node: stripe_node.StripeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.put("first", bytes(2 * STRIPE))
    monkeypatch.setattr(group_commit, "QUEUED_OPERATIONS_MAX", 0)
    with pytest.raises(errors.OverloadedError):
        await put(node, stripe_node.Body(bytes(2 * STRIPE)))
    monkeypatch.undo()
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_a_part_is_settled_like_an_object(node: stripe_node.StripeNode) -> None:
    upload = await node.store.create_upload(
        objects.PutRequest(bucket=stripe_node.BUCKET, key="k"),
        checksum_algorithm="",
        checksum_type="",
    )
    body = stripe_node.Body(bytes(2 * STRIPE))
    await node.store.put_part(upload, part_number=1, body=body)
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_a_body_that_fails_is_settled(node: stripe_node.StripeNode) -> None:
    with pytest.raises(errors.BodyTruncatedError):
        await put(node, stripe_node.Body(bytes(2 * STRIPE), missing_bytes=STRIPE))
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_a_body_cancelled_while_a_stripe_is_written_is_settled(
    node: stripe_node.StripeNode,
) -> None:
    await node.put("first", bytes(STRIPE))
    reached, go_on = asyncio.Event(), asyncio.Event()
    honest = node.media.write_all

    async def slow(
        writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        reached.set()
        await go_on.wait()
        return await honest(writes, durable=durable)

    node.media.write_all = slow  # type: ignore[method-assign]
    uploading = asyncio.ensure_future(put(node, stripe_node.Body(bytes(2 * STRIPE))))
    await reached.wait()
    uploading.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    node.media.write_all = honest  # type: ignore[method-assign]
    assert node.groups._unsettled == {}
    await close_group(node)
    assert await state_of_first(node) == SEALED


async def test_an_operation_that_fails_unforeseen_has_ended_too() -> None:
    ended: list[str] = []

    async def run_commit(gather: commit_log.Gather) -> None:
        gather()
        raise RuntimeError("unforeseen")

    commits = group_commit.GroupCommit(run_commit)
    operation = commit_log.Operation(apply=lambda txn, _: None, on_end=lambda: ended.append("x"))
    with pytest.raises(RuntimeError):
        await commits.submit(operation)
    assert ended == ["x"]


async def test_the_seal_keeps_members_that_were_replaced_meanwhile(
    node: stripe_node.StripeNode,
) -> None:
    place = await write_stripe(node)
    (record,) = node.group_records()
    moved = (*record.members[:-1], (record.members[-1][0], 20))
    with node.index.write() as txn:
        changed = msgspec.structs.replace(record, members=moved)
        txn.put(media_records.group_key(record.group_id), media_records.pack(changed))
        txn.commit()
    await close_group(node)
    node.groups.settle(place)
    assert await state_of_first(node) == SEALED
    assert node.group_records()[0].members == moved


async def test_what_could_not_be_sealed_is_sealed_with_the_next_stripe(
    node: stripe_node.StripeNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = await write_stripe(node)
    await close_group(node)
    monkeypatch.setattr(group_commit, "QUEUED_OPERATIONS_MAX", 0)
    node.groups.settle(place)
    assert await state_of_first(node) == OPEN
    for _ in range(3):
        await tend(node)
    assert len([line for line in caplog.messages if "are sealed later" in line]) == 1
    monkeypatch.undo()
    await write_stripe(node)
    assert await state_of_first(node) == SEALED


async def test_a_new_life_seals_what_the_one_before_left_full(
    node: stripe_node.StripeNode,
) -> None:
    await write_stripe(node)  # Its commit died with the process.
    await close_group(node)
    node.start()
    await write_stripe(node)
    assert await state_of_first(node) == SEALED
    assert [record.state for record in node.group_records()] == [SEALED, OPEN]


async def test_a_new_life_seals_groups_on_devices_that_are_gone(
    node: stripe_node.StripeNode,
) -> None:
    await write_stripe(node)
    del node.devices[ids.DeviceId(f"{5:032x}")]
    node.start()
    shape = node.groups.current_geometry()
    stripe = stripe_assembly.StripeBuffer(node.pool, shape, STRIPE)
    await node.groups.write_stripe(stripe, extent_address=ids.ExtentAddress(1 << 20))
    stripe.release()
    assert await state_of_first(node) == SEALED


async def test_an_idle_group_takes_no_more_once_a_member_has_left(
    node: stripe_node.StripeNode,
) -> None:
    node.groups.settle(await write_stripe(node))
    node.media.report_failure(ids.DeviceId(f"{5:032x}"), errors.DeviceGoneError("pulled out"))
    stripe = stripe_assembly.StripeBuffer(node.pool, node.groups.current_geometry(), STRIPE)
    await node.groups.write_stripe(stripe, extent_address=ids.ExtentAddress(1 << 20))
    stripe.release()
    assert await state_of_first(node) == SEALED


async def tend(node: stripe_node.StripeNode) -> None:
    await node.groups.tend()
    await node.groups.drain()


async def test_an_idle_group_is_sealed_once_a_member_has_left(node: stripe_node.StripeNode) -> None:
    node.groups.settle(await write_stripe(node))
    await tend(node)
    assert await state_of_first(node) == OPEN
    node.media.report_failure(ids.DeviceId(f"{5:032x}"), errors.DeviceGoneError("pulled out"))
    await tend(node)
    assert await state_of_first(node) == SEALED


async def test_a_new_life_seals_what_is_on_gone_devices_without_writing(
    node: stripe_node.StripeNode,
) -> None:
    await write_stripe(node)
    del node.devices[ids.DeviceId(f"{5:032x}")]
    node.start()
    await tend(node)
    assert [record.state for record in node.group_records()] == [SEALED]


async def test_a_new_life_goes_on_in_what_it_took_over_before_it_wrote(
    node: stripe_node.StripeNode,
) -> None:
    await write_stripe(node)
    node.start()
    await asyncio.gather(node.groups.tend(), node.groups.tend())
    await write_stripe(node)
    assert [record.state for record in node.group_records()] == [OPEN]


async def test_damage_in_an_idle_group_seals_it_so_that_it_can_be_rebuilt(
    node: stripe_node.StripeNode,
) -> None:
    place = await write_stripe(node)
    for _ in range(3):
        await tend(node)
    assert await state_of_first(node) == OPEN
    found = media_records.RepairRecord(place.group_id, place.offset_bytes, 1, "rot", 1)

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        key = media_records.repair_key(place.group_id, place.offset_bytes, 1)
        txn.put(key, media_records.pack(found))

    await node.commits.submit(commit_log.Operation(apply=apply))
    second = await write_stripe(node)
    await tend(node)
    third = await write_stripe(node)
    assert third.group_id == second.group_id == place.group_id, "it was written to"
    await tend(node)
    await tend(node)
    assert await state_of_first(node) == OPEN, "its stripes are not settled"
    for each in (place, second, third):
        node.groups.settle(each)
    assert await state_of_first(node) == SEALED


@pytest.mark.parametrize(
    ("writer", "vacant"),
    [
        ("worker-0", False),
        ("worker-1", False),
        ("worker-2", True),
        ("worker-17", True),
        ("worker-", False),
        ("worker-x", False),
        ("maintenance", False),
        ("recovery", True),
        ("something new", False),
        ("2", False),
    ],
)
def test_which_slots_certainly_have_no_process(writer: str, vacant: bool) -> None:
    assert writer_slots.is_vacant(writer, workers_count=2) is vacant


async def test_what_former_writers_left_open_is_sealed(node: stripe_node.StripeNode) -> None:
    for writer in ("worker-1", "worker-2"):
        node.start(writer)
        await node.put(f"of {writer}", bytes(STRIPE + units.KIB))
    node.start("maintenance")
    assert await writer_slots.seal_vacant(node.index, node.commits.submit, workers_count=2) == 2
    states = {record.writer: record.state for record in node.group_records()}
    assert states == {"worker-1": OPEN, "worker-2": SEALED}
    segments = {record.writer: record.state for record in node.segment_records()}
    assert segments["worker-2"] == SEALED
    assert set(segments.values()) - {SEALED} == {OPEN}
    assert segments["worker-1"] == OPEN
    assert await writer_slots.seal_vacant(node.index, node.commits.submit, workers_count=2) == 0
