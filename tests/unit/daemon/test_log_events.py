"""Events in the log: one line each, but for those that repeat for one cause."""

from __future__ import annotations

import logging

import pytest

from couchestor_daemon.adapters import log_events
from couchestor_domain import events, ids


def failed(device: str) -> events.ShardFailed:
    return events.ShardFailed(
        group_id=ids.GroupId(1),
        stripe_offset_bytes=0,
        shard_index=0,
        device_id=ids.DeviceId(device),
        reason="cannot be read",
    )


class Clock:
    """A clock that a test moves."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_cause_that_repeats_gets_a_line_now_and_then_with_its_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="couchestor.events")
    clock = Clock()
    publisher = log_events.LogEventPublisher(clock)
    for _ in range(3):
        publisher.publish(failed("a"))
    publisher.publish(failed("b"))
    clock.seconds += log_events.QUIET_SECONDS
    publisher.publish(failed("a"))
    lines = [
        (record.__dict__["event_device_id"], record.__dict__["event_count"])
        for record in caplog.records
    ]
    assert lines == [("a", 1), ("b", 1), ("a", 3)]


def test_causes_are_not_kept_without_end(caplog: pytest.LogCaptureFixture) -> None:
    publisher = log_events.LogEventPublisher(Clock())
    caplog.set_level(logging.INFO, logger="couchestor.events")
    for number in range(3 * log_events.CAUSES_MAX):
        publisher.publish(failed(str(number)))
    assert len(caplog.records) == 3 * log_events.CAUSES_MAX
    assert len(publisher._quiet_until) <= log_events.CAUSES_MAX


def test_other_events_get_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="couchestor.events")
    publisher = log_events.LogEventPublisher(Clock())
    for _ in range(2):
        publisher.publish(
            events.HealthChanged(subject="device a", healthy=False, reason="it is gone")
        )
    assert len(caplog.records) == 2


def test_the_death_of_a_device_is_in_a_log_of_warnings_by_its_label(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="couchestor.events")
    publisher = log_events.LogEventPublisher(
        Clock(), label_of={ids.DeviceId("a"): "d1"}.__getitem__
    )
    publisher.publish(events.HealthChanged(subject="device a", healthy=True, reason="is back"))
    assert caplog.records == []
    publisher.publish(events.HealthChanged(subject="device a", healthy=False, reason="is gone"))
    publisher.publish(failed("a"))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert [record.__dict__["event_device_label"] for record in caplog.records] == ["d1"] * 2
