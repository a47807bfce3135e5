"""A body that may be shorter than announced becomes an object as long as what came of it."""

from __future__ import annotations

import hashlib

import pytest
import stripe_node

from couchestor_domain import errors, objects

STRIPE = stripe_node.STRIPE_BYTES
THRESHOLD = stripe_node.THRESHOLD_BYTES


@pytest.fixture
async def node() -> stripe_node.StripeNode:
    made = stripe_node.StripeNode()
    await made.make_bucket()
    return made


async def _read(node: stripe_node.StripeNode, record: objects.ObjectRecord) -> bytes:
    pieces = node.store.stream(record, start_bytes=0, length_bytes=record.size_bytes)
    return b"".join([bytes(piece) async for piece in pieces])


@pytest.mark.parametrize("missing_bytes", [1, 2, THRESHOLD, STRIPE - 1, STRIPE, 3 * STRIPE + 5])
@pytest.mark.parametrize(
    "size_bytes",
    [
        0,
        1,
        THRESHOLD - 2,
        THRESHOLD - 1,
        THRESHOLD,
        STRIPE - 1,
        STRIPE,
        STRIPE + 1,
        STRIPE + THRESHOLD - 1,
        STRIPE + THRESHOLD,
        2 * STRIPE,
    ],
)
async def test_what_came_is_the_object(
    node: stripe_node.StripeNode, size_bytes: int, missing_bytes: int
) -> None:
    data = hashlib.shake_128(b"early").digest(size_bytes)
    body = stripe_node.Body(data, missing_bytes=missing_bytes, may_end_early=True)
    request = objects.PutRequest(bucket=stripe_node.BUCKET, key="k")
    record = await node.store.put_object(request, body)
    assert record.size_bytes == size_bytes
    assert sum(extent.length_bytes for extent in record.extents) == size_bytes
    assert await _read(node, record) == data
    await node.settled()
    assert node.pool.lent_bytes == 0
    # The range that was leased for more is not given to others in part.
    after = await node.put("after", b"y" * STRIPE)
    assert await _read(node, record) == data
    assert await _read(node, after) == b"y" * STRIPE


async def test_a_part_may_end_early_as_well(node: stripe_node.StripeNode) -> None:
    upload = await node.store.create_upload(
        objects.PutRequest(bucket=stripe_node.BUCKET, key="k"),
        checksum_algorithm="",
        checksum_type="",
    )
    body = stripe_node.Body(b"x" * STRIPE, missing_bytes=9, may_end_early=True)
    part = await node.store.put_part(upload, part_number=1, body=body)
    assert part.size_bytes == STRIPE


@pytest.mark.parametrize("size_bytes", [0, THRESHOLD, STRIPE, STRIPE + 1])
async def test_elsewhere_a_body_that_ends_early_is_truncated(
    node: stripe_node.StripeNode, size_bytes: int
) -> None:
    request = objects.PutRequest(bucket=stripe_node.BUCKET, key="k")
    with pytest.raises(errors.BodyTruncatedError):
        await node.store.put_object(request, stripe_node.Body(bytes(size_bytes), missing_bytes=1))
    await node.settled()
    assert node.pool.lent_bytes == 0
    with pytest.raises(errors.NoSuchKeyError):
        await node.store.get_object(bucket=stripe_node.BUCKET, key="k")
