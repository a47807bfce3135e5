"""What a person reads of repairs in `couchestor status`."""

from __future__ import annotations

from typing import Any

from couchestor_daemon.app import node_warnings, status_text

ENDED = {
    "began_at": "2026-01-01T00:00:00+00:00",
    "ended_at": "2026-01-02T00:00:00+00:00",
    "read_bytes": 5 << 20,
    "shards_verified": 600,
    "shards_damaged": 2,
    "shards_rebuilt": 3,
    "other_findings": 1,
}
RUNNING = {**ENDED, "began_at": "2026-01-03T00:00:00+00:00", "ended_at": ""}


def lines(**node: object) -> list[str]:
    return status_text.render({"ready": True, "node": node}).splitlines()[1:]


def warned(**node: Any) -> list[str]:
    return node_warnings.warnings(node)


def test_a_rebuild_under_way_says_how_long_it_takes() -> None:
    waiting = {"groups_waiting": 7, "left_bytes": 300 << 20, "seconds_left": 42}
    assert lines(rebuild=waiting) == [
        "rebuild    7 groups wait, up to 300 MiB to write, about 42 s"
    ]


def test_a_rebuild_that_has_nothing_to_do_says_nothing() -> None:
    assert lines(rebuild={"groups_waiting": 0, "groups_failed": 0, "left_bytes": 0}) == []


def test_lost_bytes_are_a_warning() -> None:
    (line,) = warned(rebuild={"groups_waiting": 0, "groups_failed": 2})
    assert line == "2 groups have lost bytes, see the log"


def test_a_scrub_tells_of_its_pass_and_of_the_one_before() -> None:
    last = (
        "last scrub 2026-01-02T00:00:00+00:00: 600 shards verified, 2 damaged, 1 other findings, "
        "3 rebuilt before its end and 5 since"
    )
    assert lines(scrub={"now": ENDED, "last": {}, "shards_rebuilt_since": 5}) == [last]
    assert lines(scrub={"now": RUNNING, "last": ENDED, "shards_rebuilt_since": 5}) == [
        "scrub      5 MiB read since 2026-01-03T00:00:00+00:00",
        last,
    ]


def test_groups_that_move_for_want_of_a_device_say_whose_place_is_empty() -> None:
    moving = {
        "groups": 12,
        "data_shards": 3,
        "parity_shards": 2,
        "in_place_of": ["d3"],
        "waits_for_room": False,
    }
    line = "moving     12 groups to 3 + 2: no device is free to take the place of d3"
    assert lines(moving=moving) == [line]
    assert warned(moving=moving) == []
    assert warned(moving={**moving, "waits_for_room": True}) == [
        "12 groups over lost devices wait for room to move: delete objects or add devices",
    ]
    assert lines(moving={**moving, "groups": 0, "in_place_of": []}) == []


def test_a_device_that_left_is_named_with_its_reason() -> None:
    assert warned(departed={"d3": "a write failed", "d1": "a flush hung"}) == [
        "device d1 is out of service: a flush hung",
        "device d3 is out of service: a write failed",
    ]
    assert warned(departed={}) == []


def test_what_is_still_to_be_moved_between_devices() -> None:
    balance = {"zones_left": 0, "draining": {}, "members_moved": 7}
    assert lines(balance=balance) == []
    assert lines(balance={**balance, "zones_left": 12, "draining": {"d3": 5, "d1": 0}}) == [
        "draining   d1: empty",
        "draining   d3: 5 zones left",
        "balance    about 12 zones to move to emptier devices",
    ]


def test_a_device_that_is_not_trusted_is_a_warning_with_its_numbers() -> None:
    text = "held: slow: small reads took 40.0 ms in the mean, 1.0 ms on the other devices"
    assert warned(mistrusted={"d3": text}) == [f"device d3 is {text}"]
    assert warned(mistrusted={}) == []


def devices(*, in_service: int, taking_writes: int) -> dict[str, int]:
    return {
        "members": 6,
        "in_service": in_service,
        "taking_writes": taking_writes,
        "writes_need": 3,
        "losses_survived": 2,
    }


def test_devices_that_are_away_are_counted() -> None:
    assert lines(device_counts=devices(in_service=6, taking_writes=6)) == [
        "devices    6 in service"
    ]
    assert lines(device_counts=devices(in_service=4, taking_writes=4)) == [
        "devices    4 in service, 2 not"
    ]


def test_what_a_loss_costs_is_a_warning() -> None:
    assert warned(device_counts=devices(in_service=4, taking_writes=3)) == []
    refused = "writes are refused with 503: 2 devices take them and 3 are needed"
    assert warned(device_counts=devices(in_service=4, taking_writes=2)) == [refused]
    assert warned(device_counts=devices(in_service=2, taking_writes=2)) == [
        "4 of 6 devices are out of service, more than the 2 that may be: part of what is stored "
        "cannot be read before some of them are back",
        refused,
    ]
    assert warned(missing={"d3": "/mnt/d3"}) == [
        "device d3 is missing; it was last seen at /mnt/d3"
    ]


def test_a_node_without_any_device_is_not_ready() -> None:
    assert node_warnings.reasons_not_to_serve({}) == []
    one = {"device_counts": devices(in_service=1, taking_writes=1)}
    assert node_warnings.reasons_not_to_serve(one) == []
    none = {"device_counts": devices(in_service=0, taking_writes=0)}
    assert node_warnings.reasons_not_to_serve(none) == [
        "none of the node's 6 devices is in service"
    ]
