from __future__ import annotations

import dataclasses

import pytest

from couchestor_domain import events, ids


def test_the_catalogue_of_events_is_complete_and_distinct() -> None:
    names = [kind.__name__ for kind in events.ALL_EVENTS]
    assert len(names) == len(set(names)) == 24
    defined = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.DomainEvent)
    }
    assert set(events.ALL_EVENTS) == defined - {events.DomainEvent}


@pytest.mark.parametrize("kind", events.ALL_EVENTS, ids=lambda kind: kind.__name__)
def test_a_kind_knows_its_name_and_carries_typed_fields(kind: type[events.DomainEvent]) -> None:
    assert kind.name == kind.__name__
    fields = dataclasses.fields(kind)
    assert fields
    assert "name" not in {field.name for field in fields}
    assert "__slots__" in vars(kind)


def test_an_event_has_no_room_for_anything_but_its_fields() -> None:
    event = events.VolumeDeleted(volume="v")
    assert not hasattr(event, "__dict__")


def test_an_event_is_an_immutable_fact_with_a_name() -> None:
    event = events.DegradedRead(
        group_id=ids.GroupId(7), stripe_offset_bytes=4096, missing_shards=(1,)
    )
    assert event.name == "DegradedRead"
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.group_id = ids.GroupId(8)  # type: ignore[misc]
