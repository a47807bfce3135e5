"""Versions of keys against a list of them for each key, newest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import index_keys, l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    buckets,
    liveness,
    usage,
    version_listing,
    versions,
)
from couchestor_domain import errors, ids, objects, version_ids

BUCKET = "photos"
LONG = "x" * 481
KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "é", LONG, LONG + "/y"])
NULL = objects.NULL_VERSION


class Put(NamedTuple):
    key: str


class Delete(NamedTuple):
    key: str


class DeleteOne(NamedTuple):
    key: str
    number: int
    """Which of the key's versions, newest first; behind the last: one that does not exist."""


class Switch(NamedTuple):
    versioning: objects.Versioning


class Look(NamedTuple):
    prefix: str
    delimiter: str
    limit: int
    """Of each page."""


STEPS = st.lists(
    st.builds(Put, KEYS)
    | st.builds(Delete, KEYS)
    | st.builds(DeleteOne, KEYS, st.integers(0, 3))
    | st.builds(
        Switch, st.sampled_from([objects.Versioning.ENABLED, objects.Versioning.SUSPENDED])
    ),
    max_size=30,
)
LOOKS = st.lists(
    st.builds(
        Look, st.sampled_from(["", "a", "a/", LONG]), st.sampled_from(["", "/"]), st.integers(1, 4)
    ),
    min_size=1,
    max_size=3,
)


class Held(NamedTuple):
    """A version as the model knows it."""

    version_id: str
    etag: str
    is_marker: bool


class Model:
    """What the section on versions in S3's user guide says, done on lists."""

    def __init__(self) -> None:
        self.versioning = objects.Versioning.NEVER
        self.keys: dict[str, list[Held]] = {}

    def add(self, key: str, version_id: str, etag: str, *, is_marker: bool) -> None:
        held = self.keys.setdefault(key, [])
        if version_id == NULL:
            held[:] = [each for each in held if each.version_id != NULL]
        held.insert(0, Held(version_id, etag, is_marker))

    def remove(self, key: str, version_id: str) -> None:
        held = self.keys.get(key, [])
        held[:] = [each for each in held if each.version_id != version_id]
        if not held:
            self.keys.pop(key, None)

    def listed(self, look: Look) -> list[tuple[str, str, bool, bool]]:
        """Key, id, whether it is the latest and whether it is a marker; or a common prefix."""
        found: dict[tuple[str, str], tuple[str, str, bool, bool]] = {}
        for key in sorted(self.keys, key=str.encode):
            if not key.startswith(look.prefix):
                continue
            at = key.find(look.delimiter, len(look.prefix)) if look.delimiter else -1
            if at >= 0:
                found[key[: at + 1], ""] = (key[: at + 1], "", False, False)
                continue
            for number, each in enumerate(self.keys[key]):
                found[key, each.version_id] = (
                    key,
                    each.version_id,
                    number == 0,
                    each.is_marker,
                )
        return list(found.values())


class Store:
    """The catalogue, and what it was told."""

    def __init__(self, txn: index_port.IndexWriter) -> None:
        self._txn = txn
        self._random = itertools.count(1)
        self._serial = 0
        self.model = Model()
        buckets.create_bucket(txn, name=BUCKET, owner="o", region="r", now_ns=1)

    def draw(self) -> bytes:
        return next(self._random).to_bytes(version_ids.RANDOM_BYTES, "big")

    def take(self, step: Put | Delete | DeleteOne | Switch) -> None:
        # Time stands still now and then, and goes back.
        self._serial += 1
        now_ns = 50 + self._serial // 3 - self._serial % 2
        match step:
            case Put(key):
                self._put(key, now_ns)
            case Delete(key):
                self._delete(key, now_ns)
            case DeleteOne(key, number):
                self._delete_one(key, number, now_ns)
            case Switch(versioning):
                buckets.set_versioning(self._txn, BUCKET, versioning)
                self.model.versioning = versioning

    def _put(self, key: str, now_ns: int) -> None:
        address = ids.ExtentAddress(self._serial * 100)
        record = objects.ObjectRecord(
            bucket=BUCKET,
            key=key,
            size_bytes=10,
            etag=f"{self._serial:032x}",
            modified_ns=now_ns,
            extents=(ids.Extent(address, 10),),
        )
        location = l2p_record.StripeLocation(1, 0, 4096, 10, 0, 10)
        done = versions.put_version(
            self._txn, record, objects.NO_CONDITIONS, [(address, location)], draw=self.draw
        )
        self._require_id(done.version_id)
        assert done.is_named == (self.model.versioning is not objects.Versioning.NEVER)
        self.model.add(key, done.version_id, record.etag, is_marker=False)

    def _delete(self, key: str, now_ns: int) -> None:
        done = versions.delete_version(
            self._txn, BUCKET, key, objects.NO_CONDITIONS, now_ns=now_ns, draw=self.draw
        )
        if self.model.versioning is objects.Versioning.NEVER:
            assert done == objects.Deletion()
            self.model.remove(key, NULL)
            return
        self._require_id(done.version_id)
        assert done.is_delete_marker
        self.model.add(key, done.version_id, "", is_marker=True)

    def _delete_one(self, key: str, number: int, now_ns: int) -> None:
        held = self.model.keys.get(key, [])
        is_there = number < len(held)
        version_id = held[number].version_id if is_there else version_ids.make(3, bytes(12))
        done = versions.delete_version(
            self._txn,
            BUCKET,
            key,
            objects.NO_CONDITIONS,
            version_id=version_id,
            now_ns=now_ns,
            draw=self.draw,
        )
        assert done.is_delete_marker == (is_there and held[number].is_marker)
        self.model.remove(key, version_id)

    def _require_id(self, version_id: str) -> None:
        enabled = self.model.versioning is objects.Versioning.ENABLED
        assert (version_id == NULL) != enabled

    def require_all_there(self) -> None:
        for key, held in self.model.keys.items():
            newest = held[0]
            if newest.is_marker:
                with pytest.raises(errors.NoSuchKeyError) as refused:
                    versions.get_version(self._txn, BUCKET, key)
                assert refused.value.context["delete_marker"] == newest.version_id
            else:
                record = versions.get_version(self._txn, BUCKET, key)
                assert (record.version_id, record.etag) == (newest.version_id, newest.etag)
            for number, each in enumerate(held):
                if each.is_marker:
                    with pytest.raises(errors.DeleteMarkerError):
                        versions.get_version(self._txn, BUCKET, key, each.version_id)
                else:
                    record = versions.get_version(self._txn, BUCKET, key, each.version_id)
                    assert (record.etag, record.is_latest) == (each.etag, number == 0)
            with pytest.raises(errors.NoSuchVersionError):
                versions.get_version(self._txn, BUCKET, key, version_ids.make(3, bytes(12)))
        stored = [each for held in self.model.keys.values() for each in held if not each.is_marker]
        assert liveness.group_bytes(self._txn, 1) == 10 * len(stored)
        counted = usage.of_bucket(self._txn, buckets.find(self._txn, BUCKET).bucket_id)
        assert counted is not None
        assert (counted.size_bytes, counted.objects_count) == (10 * len(stored), len(stored))
        assert list(usage.miscounted(self._txn)) == []

    def pages(self, look: Look, *, empties: bool = False) -> Iterator[objects.VersionPage]:
        """Page by page; with ``empties`` what a page shows is deleted before the next one."""
        key_marker = version_marker = ""
        while True:
            page = version_listing.list_versions(
                self._txn,
                objects.VersionQuery(
                    bucket=BUCKET,
                    prefix=look.prefix,
                    delimiter=look.delimiter,
                    key_marker=key_marker,
                    version_marker=version_marker,
                    limit=look.limit,
                ),
            )
            yield page
            if empties:
                for record in page.versions:
                    versions.delete_version(
                        self._txn,
                        BUCKET,
                        record.key,
                        objects.NO_CONDITIONS,
                        version_id=record.version_id,
                        now_ns=1,
                        draw=self.draw,
                    )
            if not page.truncated:
                return
            key_marker, version_marker = page.next_key_marker, page.next_version_marker


def shown(page: objects.VersionPage) -> list[tuple[str, str, bool, bool]]:
    entries = [
        (record.key, record.version_id, record.is_latest, record.is_delete_marker)
        for record in page.versions
    ]
    entries += [(prefix, "", False, False) for prefix in page.common_prefixes]
    # Sorting keeps the order of the versions of a key.
    return sorted(entries, key=lambda entry: entry[0].encode())


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(steps=STEPS, looks=LOOKS, emptying=st.integers(1, 4))
def test_versions_are_lists(
    steps: Sequence[Put | Delete | DeleteOne | Switch], looks: Sequence[Look], emptying: int
) -> None:
    with memory_index.MemoryIndex().write() as txn:
        store = Store(txn)
        bystanders = list(txn.scan(b"\x00", b"\xff"))
        for step in steps:
            store.take(step)
        store.require_all_there()
        for look in looks:
            pages = list(store.pages(look))
            assert all(len(shown(page)) == look.limit for page in pages[:-1])
            assert [entry for page in pages for entry in shown(page)] == store.model.listed(look)
        # As tools empty a bucket.
        for _ in store.pages(Look("", "", emptying), empties=True):
            pass
        left = [
            pair
            for pair in txn.scan(b"\x00", b"\xff")
            if pair[0] != index_keys.NAMESPACE_KEY and pair[0] != index_keys.bucket(BUCKET)
        ]
        assert left == [
            pair
            for pair in bystanders
            if pair[0] != index_keys.NAMESPACE_KEY and pair[0] != index_keys.bucket(BUCKET)
        ]
        buckets.delete_bucket(txn, BUCKET)
