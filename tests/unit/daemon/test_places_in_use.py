"""How long lookups count, and how other processes see it."""

from __future__ import annotations

import pathlib

import stripe_node

from couchestor_daemon.adapters import read_board
from couchestor_daemon.services import extent_reader, places_in_use


def test_the_horizon_is_the_oldest_use_that_has_not_ended() -> None:
    in_use = places_in_use.PlacesInUse(forgotten_seconds=60.0)
    assert in_use.horizon_seconds(100.0) == 100.0
    first, second = in_use.begin(101.0), in_use.begin(102.0)
    assert in_use.horizon_seconds(110.0) == 101.0
    del first
    assert in_use.horizon_seconds(110.0) == 102.0
    del second
    assert in_use.horizon_seconds(110.0) == 110.0


def test_a_use_that_never_ends_is_forgotten() -> None:
    in_use = places_in_use.PlacesInUse(forgotten_seconds=60.0)
    held = in_use.begin(100.0)
    assert in_use.horizon_seconds(160.0) == 160.0
    assert held is not None


async def test_a_read_counts_from_its_lookup_to_its_end() -> None:
    node = stripe_node.StripeNode()
    await node.make_bucket()
    await node.put("key", bytes(200_000))
    record = await node.store.get_object(bucket=stripe_node.BUCKET, key="key")
    looked_up = node.now_seconds
    node.now_seconds += 1.0
    assert node.places_in_use.horizon_seconds(node.now_seconds) == looked_up
    stream = node.store.stream(record, start_bytes=0, length_bytes=record.size_bytes)
    await anext(stream)
    del record
    assert node.places_in_use.horizon_seconds(node.now_seconds) == looked_up
    async for _ in stream:
        pass
    del stream
    assert node.places_in_use.horizon_seconds(node.now_seconds) == node.now_seconds


async def test_places_that_are_looked_up_again_are_used_since_then() -> None:
    node = stripe_node.StripeNode()
    await node.make_bucket()
    size = 3 * extent_reader.PIECE_BYTES_MAX
    await node.put("key", bytes(size))
    record = await node.store.get_object(bucket=stripe_node.BUCKET, key="key")
    stream = node.extents.pieces(record.extents, start_bytes=0, length_bytes=size)
    del record
    await anext(stream)
    node.now_seconds += 100.0
    await anext(stream)
    assert node.places_in_use.horizon_seconds(node.now_seconds) == node.now_seconds
    await stream.aclose()  # type: ignore[attr-defined]


def test_the_board_tells_the_least_of_all_slots(tmp_path: pathlib.Path) -> None:
    board = read_board.ReadBoard(tmp_path, 2)
    first = read_board.ReadBoardWriter(tmp_path, 0)
    first.publish(12.5)
    assert board.horizon_seconds() == 0.0, "the other slot has not said anything"
    second = read_board.ReadBoardWriter(tmp_path, 1)
    assert board.horizon_seconds() == 0.0
    second.publish(11.25)
    assert board.horizon_seconds() == 11.25
    second.publish(13.0)
    assert board.horizon_seconds() == 12.5
    first.close()
    second.close()
