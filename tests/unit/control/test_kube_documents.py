"""Documents of the Kubernetes API: read whatever is in them, written as its schemas want them."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from couchestor_domain import errors, events, tiers
from couchestor_operator.adapters import kube_access
from couchestor_operator.control import election, pool
from couchestor_operator.resources import (
    disk_pool,
    event_document,
    lease_document,
    policy_document,
)

POOL: dict[str, Any] = {
    "apiVersion": "openebs.io/v1beta3",
    "kind": "DiskPool",
    "metadata": {
        "name": "pool-a",
        "namespace": "mayastor",
        "labels": {"tier": "hot"},
        "resourceVersion": "7",
        "managedFields": [],
    },
    "spec": {"node": "node-1", "disks": ["/dev/sda"], "topology": {"labelled": {}}},
    "status": {
        "cr_state": "Created",
        "pool_status": "Online",
        "capacity": 1000,
        "used": 400,
        "available": 600,
        "new_in_a_later_version": {},
    },
}


def test_a_disk_pool_that_is_online() -> None:
    assert disk_pool.pool_of(POOL) == pool.Pool(
        name="pool-a",
        node="node-1",
        online=True,
        available_bytes=600,
        labels={"tier": "hot"},
    )


@pytest.mark.parametrize(
    "change",
    [
        {"status": None},
        {"status": {}},
        {"status": POOL["status"] | {"cr_state": "Creating", "pool_status": None}},
        {"status": POOL["status"] | {"cr_state": "Terminating"}},
        {"status": POOL["status"] | {"pool_status": "Degraded"}},
        {"status": POOL["status"] | {"pool_status": "Unknown"}},
        {"status": POOL["status"] | {"pool_status": "ANewName"}},
        {"metadata": POOL["metadata"] | {"deletionTimestamp": "2023-11-14T22:13:20Z"}},
    ],
)
def test_a_disk_pool_takes_nothing_unless_it_is_there_and_well(change: dict[str, Any]) -> None:
    assert not disk_pool.pool_of(POOL | change).online


@pytest.mark.parametrize("change", [{"spec": {}}, {"status": {"available": "many"}}])
def test_what_is_no_disk_pool_is_refused_by_field(change: dict[str, Any]) -> None:
    with pytest.raises(errors.KubernetesApiError, match="DiskPool cannot be read"):
        disk_pool.pool_of(POOL | change)


def test_a_lease_of_others_is_read_whatever_it_lacks() -> None:
    found = lease_document.lease_of(
        {"metadata": {"name": "x", "uid": "u-1", "resourceVersion": "3"}, "spec": {}},
        lease_seconds=15,
    )
    assert found == election.Lease(
        holder="",
        lease_seconds=15,
        acquired_seconds=0.0,
        renewed_seconds=0.0,
        transitions_count=0,
        version="u-1/3",
    )
    written = lease_document.document_of(found, name="x", namespace="n")
    assert written["metadata"] == {
        "name": "x",
        "namespace": "n",
        "uid": "u-1",
        "resourceVersion": "3",
    }
    with pytest.raises(errors.KubernetesApiError, match="cannot be read"):
        lease_document.lease_of(
            {"metadata": {"name": "x"}, "spec": {"renewTime": "yesterday"}}, lease_seconds=15
        )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1_700_000_000.0, "2023-11-14T22:13:20.000000Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.500000Z"),
    ],
)
def test_a_micro_time_has_six_digits(seconds: float, text: str) -> None:
    assert lease_document.micro_time(seconds) == text


def _told(event: events.DomainEvent) -> dict[str, Any] | None:
    return event_document.document_of(event, name="e", instance="i", now_seconds=1.5)


def test_an_event_stands_beside_the_volume_under_the_name_that_kubernetes_gives_it() -> None:
    event = events.MigrationFailed(volume="8a5b", step="WaitSync", reason="x" * 2000)
    document = _told(event)
    assert document is not None
    assert document["regarding"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "name": "pvc-8a5b",
    }
    assert (document["reason"], document["type"]) == ("MigrationFailed", "Warning")
    assert document["eventTime"] == "1970-01-01T00:00:01.500000Z"
    assert len(document["note"]) == event_document.NOTE_LENGTH_MAX


def test_every_event_of_a_migration_is_told_and_no_other() -> None:
    told: list[events.DomainEvent] = [
        events.MigrationStarted(
            volume="pvc-1", source_pool="a", target_pool="b", target_tier=tiers.Tier.HOT
        ),
        events.ReplicaAdded(volume="pvc-1", pool="b"),
        events.ReplicaSynced(volume="pvc-1", pool="b", duration_seconds=3.0),
        events.ReplicaRemoved(volume="pvc-1", pool="a"),
        events.MigrationCompleted(volume="pvc-1", target_pool="b", duration_seconds=60.0),
        events.MigrationAborted(volume="pvc-1", step="Analyze", reason="y"),
    ]
    notes = []
    for event in told:
        document = _told(event)
        assert document is not None
        assert document["regarding"]["name"] == "pvc-1"
        notes.append(document["note"])
    assert notes == [
        "moves from pool a to b (hot)",
        "has a new replica in pool b",
        "is synced in pool b after 3 s",
        "has no replica in pool a any more",
        "is in pool b after 60 s",
        "in step Analyze: y",
    ]
    assert _told(events.VolumeDeleted(volume="pvc-1")) is None


def test_finalizers_of_others_stay() -> None:
    document = {"metadata": {"name": "p", "finalizers": ["of/others"]}, "spec": {}}
    ours = policy_document.with_finalizer(document, wanted=True)
    assert ours["metadata"]["finalizers"] == ["of/others", policy_document.FINALIZER]
    assert policy_document.has_finalizer(ours)
    assert policy_document.with_finalizer(ours, wanted=True) == ours
    assert policy_document.with_finalizer(ours, wanted=False) == document


def test_a_status_that_cannot_be_read_is_no_policy_without_migrations() -> None:
    document = {"metadata": {"name": "p"}, "spec": {}, "status": {"migrations": [{"volume": 1}]}}
    with pytest.raises(errors.InvalidPolicyError, match="status of StoragePolicy p"):
        policy_document.state_of(document)


def test_what_a_pod_is_given(tmp_path: pathlib.Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = kube_access.in_cluster(environment, folder=tmp_path)
    assert access.url == "https://[fd00::1]:443"
    with pytest.raises(errors.KubernetesApiError, match="cannot be used: No such file"):
        kube_access.token_of(access)
    for content, is_token in [
        (b"abc.def\n", True),
        (b"", False),
        (b"a b", False),
        (b"\xff", False),
    ]:
        access.token_file.write_bytes(content)
        if is_token:
            assert kube_access.token_of(access) == "abc.def"
            continue
        with pytest.raises(errors.KubernetesApiError, match="it holds no token"):
            kube_access.token_of(access)


def test_outside_of_a_pod_it_is_said_what_to_give() -> None:
    with pytest.raises(errors.ConfigurationError, match="does not run in a pod"):
        kube_access.in_cluster({})
    with pytest.raises(errors.ConfigurationError, match="https://"):
        kube_access.Access(
            url="http://h", ca_file=pathlib.Path("ca"), token_file=pathlib.Path("token")
        )
