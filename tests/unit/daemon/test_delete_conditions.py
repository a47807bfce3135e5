"""Deletes on condition of an ETag: every state of a key, with every condition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, version_listing, versions
from couchestor_domain import errors, objects, version_ids

ENABLED: Final = objects.Versioning.ENABLED
SUSPENDED: Final = objects.Versioning.SUSPENDED
CONDITIONS: Final = (None, "*", "mine", "other")
_random = itertools.count(1)


def draw() -> bytes:
    return next(_random).to_bytes(version_ids.RANDOM_BYTES, "big")


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        buckets.create_bucket(writer, name="b", owner="ada", region="r", now_ns=1)
        yield writer


def _put(txn: index_port.IndexWriter, etag: str = "mine") -> str:
    record = objects.ObjectRecord(bucket="b", key="k", size_bytes=0, etag=etag, modified_ns=5)
    return versions.put_version(txn, record, objects.NO_CONDITIONS, (), draw=draw).version_id


def _delete(
    txn: index_port.IndexWriter, if_match: str | None, version_id: str | None = None
) -> objects.Deletion:
    conditions = objects.WriteConditions(if_match=if_match)
    return versions.delete_version(
        txn, "b", "k", conditions, version_id=version_id, now_ns=9, draw=draw
    )


def _versions(txn: index_port.IndexWriter) -> list[objects.ObjectRecord]:
    query = objects.VersionQuery(bucket="b")
    return list(version_listing.list_versions(txn, query).versions)


@pytest.mark.parametrize("versioning", [None, ENABLED, SUSPENDED])
@pytest.mark.parametrize("if_match", CONDITIONS)
@pytest.mark.parametrize("latest", ["nothing", "object", "marker"])
def test_a_key_goes_where_its_latest_version_fits(
    txn: index_port.IndexWriter,
    versioning: objects.Versioning | None,
    if_match: str | None,
    latest: str,
) -> None:
    if versioning is not None:
        buckets.set_versioning(txn, "b", versioning)
    if latest != "nothing":
        _put(txn)
    if latest == "marker":
        _delete(txn, None)
    # Without versioning a delete leaves nothing behind.
    tags = {"nothing": CONDITIONS, "object": (None, "*", "mine"), "marker": (None, "*")}
    holding = CONDITIONS if versioning is None and latest == "marker" else tags[latest]
    before = _versions(txn)
    if if_match in holding:
        done = _delete(txn, if_match)
        is_nothing = latest == "nothing" and if_match is not None
        assert done.is_delete_marker is (versioning is not None and not is_nothing)
        if is_nothing:
            assert _versions(txn) == []
        assert [each for each in _versions(txn) if each.is_latest and each.etag] == []
    else:
        with pytest.raises(errors.PreconditionFailedError):
            _delete(txn, if_match)
        assert _versions(txn) == before


@pytest.mark.parametrize("if_match", CONDITIONS)
@pytest.mark.parametrize("place", ["latest", "older", "marker", "missing"])
def test_a_version_goes_if_it_fits_itself(
    txn: index_port.IndexWriter, if_match: str | None, place: str
) -> None:
    buckets.set_versioning(txn, "b", ENABLED)
    older = _put(txn, "mine" if place == "older" else "else")
    latest = _put(txn, "mine" if place == "latest" else "else")
    marker = _delete(txn, None).version_id if place == "marker" else ""
    missing = version_ids.make(3, bytes(version_ids.RANDOM_BYTES))
    named = {"latest": latest, "older": older, "marker": marker, "missing": missing}[place]
    holding = {"missing": CONDITIONS, "marker": (None, "*")}.get(place, (None, "*", "mine"))
    before = [each.version_id for each in _versions(txn)]
    if if_match in holding:
        done = _delete(txn, if_match, named)
        assert done == objects.Deletion(version_id=named, is_delete_marker=place == "marker")
        before = [each for each in before if each != named]
    else:
        with pytest.raises(errors.PreconditionFailedError):
            _delete(txn, if_match, named)
    assert [each.version_id for each in _versions(txn)] == before
