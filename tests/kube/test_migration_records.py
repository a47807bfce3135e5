"""What a migration goes on with, through a real API server: all of it, never by two at once."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Final

import msgspec
import pytest
from tests.kube import control_plane

from couchestor_domain import tiers
from couchestor_operator.control import migration
from couchestor_operator.resources import definition, field_types, migration_status, policy_reading

STARTED_SECONDS: Final = 1_700_000_000.0
RECORD: Final = migration.Record(
    migration_id="5f0c",
    volume_name="pvc-1",
    source_tier=tiers.Tier.COLD,
    target_tier=tiers.Tier.HOT,
    source_replica="r0",
    source_pool="sata-0",
    target_pool="nvme-0",
    started_seconds=STARTED_SECONDS,
    step_since_seconds=STARTED_SECONDS + 1 / 64,
    deadline_seconds=STARTED_SECONDS + 1800,
    # A whole number comes back without its point.
    trigger_iops=9000.0,
    step=migration.Step.SCALE_DOWN,
    revision=4,
    synced_at_start_count=2,
    replicas_at_start=("r0", "r1"),
    new_replica="n0",
    ending=migration.Ending(
        outcome=migration.Outcome.COMPLETED,
        reason="moved",
        decided_seconds=STARTED_SECONDS + 90.25,
    ),
)
PATH: Final = f"/apis/{field_types.API_VERSION}/{definition.STORAGE_POLICY.plural}"


@pytest.fixture
def policy(
    plane: control_plane.ControlPlane, crds: dict[str, Any], request: pytest.FixtureRequest
) -> dict[str, Any]:
    """A policy of the test's own, as the server has it."""
    assert crds
    name = request.node.name.replace("_", "-").replace("[", ".").rstrip("]").lower()
    status, made = plane.request(
        "POST",
        PATH,
        {
            "apiVersion": field_types.API_VERSION,
            "kind": definition.STORAGE_POLICY.kind,
            "metadata": {"name": name},
            "spec": {},
        },
    )
    assert status == 201, made
    document: dict[str, Any] = made
    return document


def _with_records(policy: dict[str, Any], *records: migration.Record) -> dict[str, Any]:
    entries = [msgspec.to_builtins(migration_status.entry_of(record)) for record in records]
    # What is absent has no value, rather than none.
    given = [{name: value for name, value in one.items() if value is not None} for one in entries]
    return copy.deepcopy(policy) | {"status": {"migrations": given}}


def _written(plane: control_plane.ControlPlane, document: dict[str, Any]) -> tuple[int, Any]:
    return plane.request("PUT", f"{PATH}/{document['metadata']['name']}/status", document)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        dataclasses.replace(
            RECORD, source_tier=None, new_replica=None, ending=None, step=migration.Step.ANALYZE
        ),
    ],
    ids=["ending", "beginning"],
)
def test_a_record_comes_back_as_it_was_written(
    plane: control_plane.ControlPlane, policy: dict[str, Any], record: migration.Record
) -> None:
    status, written = _written(plane, _with_records(policy, record))
    assert status == 200, written
    status, read = plane.request("GET", f"{PATH}/{policy['metadata']['name']}")
    assert status == 200
    kept = policy_reading.decode(read).status
    assert kept is not None
    assert [migration_status.record_of(entry) for entry in kept.migrations] == [record]


def test_a_record_is_not_written_over_one_that_was_not_read(
    plane: control_plane.ControlPlane, policy: dict[str, Any]
) -> None:
    status, first = _written(plane, _with_records(policy, RECORD))
    assert status == 200, first
    later = dataclasses.replace(RECORD, revision=9)
    status, refused = _written(plane, _with_records(policy, later))
    assert (status, refused["reason"]) == (409, "Conflict")
    status, again = _written(plane, _with_records(first, later))
    assert status == 200, again


def test_a_volume_has_one_record(plane: control_plane.ControlPlane, policy: dict[str, Any]) -> None:
    other = dataclasses.replace(RECORD, migration_id="other")
    status, refused = _written(plane, _with_records(policy, RECORD, other))
    assert status == 422
    assert "status.migrations[1]: Duplicate value" in refused["message"]
