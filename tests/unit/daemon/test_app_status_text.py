"""What ``couchestor status`` tells a person."""

from __future__ import annotations

from couchestor_daemon.app import status_text


def test_zones_stand_by_device_and_only_when_they_are_known() -> None:
    zones = {"d10": {"used": 3, "free": 61}, "d2": {"used": 64, "free": 0}}
    lines = status_text.render({"ready": True, "node": {"zones": zones}}).splitlines()
    assert lines == [
        "the node takes requests",
        "zones",
        "  d10  3 used, 61 free",
        "  d2   64 used, 0 free",
    ]
    assert "zones" not in status_text.render({"ready": True, "node": {}})


def test_a_device_that_retires_shows_how_far_it_is() -> None:
    zones = {
        "d1": {"used": 3, "free": 0, "retiring": True},
        "d2": {"used": 0, "free": 0, "retiring": True},
    }
    lines = status_text.render({"ready": True, "node": {"zones": zones}}).splitlines()
    assert lines[2:] == [
        "  d1  retiring: 3 zones are still to be emptied",
        "  d2  retiring: empty, `couchestor device remove` takes it out",
    ]
