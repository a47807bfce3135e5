"""What a pass over a bucket takes away, against lists of versions and a plain reading of rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import hypothesis
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    bucket_lifecycle,
    buckets,
    expiry,
    expiry_walk,
    uploads,
    usage,
    version_listing,
    versions,
)
from couchestor_domain import lifecycle, objects, version_ids

BUCKET = "b"
DAY = 10
CALENDAR = lifecycle.Calendar(DAY)
LONG = "a" * 481
KEYS = st.sampled_from(["a", "a/1", "b", "é", LONG, LONG + "/y"])
TAGS: st.SearchStrategy[Mapping[str, str]] = st.sampled_from([{}, {"t": "1"}, {"t": "2"}])
ENABLED, SUSPENDED = objects.Versioning.ENABLED, objects.Versioning.SUSPENDED


class Put(NamedTuple):
    key: str
    tags: Mapping[str, str]
    wait: int


class Delete(NamedTuple):
    key: str
    wait: int


class Begin(NamedTuple):
    """An upload."""

    key: str
    wait: int


class Switch(NamedTuple):
    versioning: objects.Versioning


WAITS = st.integers(1, 25)
STEPS = st.lists(
    st.builds(Put, KEYS, TAGS, WAITS)
    | st.builds(Delete, KEYS, WAITS)
    | st.builds(Begin, KEYS, WAITS)
    | st.builds(Switch, st.sampled_from([ENABLED, SUSPENDED])),
    max_size=24,
)
FEW = st.none() | st.integers(1, 5)
RULES = st.lists(
    st.builds(
        lifecycle.Rule,
        rule_id=st.just("r"),
        is_enabled=st.booleans(),
        filter=st.builds(
            lifecycle.Filter, prefix=st.sampled_from([None, "a", "a/", "b"]), tags=TAGS
        ),
        days=FEW,
        removes_lone_markers=st.none() | st.booleans(),
        noncurrent_days=FEW,
        newer_noncurrent_count=st.none() | st.integers(1, 3),
        abort_days=FEW,
    ),
    min_size=1,
    max_size=3,
)


class Held(NamedTuple):
    """A version, or an upload, as the model knows it."""

    version_id: str
    written: int
    tags: Mapping[str, str]
    is_marker: bool = False


class World:
    """The catalogue, and lists of what it holds."""

    def __init__(self, txn: index_port.IndexWriter) -> None:
        self.txn = txn
        self.now = 100
        self.versioning = objects.Versioning.NEVER
        self.keys: dict[str, list[Held]] = {}
        """Newest first."""
        self.uploads: dict[str, list[Held]] = {}
        self._random = itertools.count(1)
        self.bucket_id = 0
        buckets.create_bucket(txn, name=BUCKET, owner="o", region="r", now_ns=1)
        self.bucket_id = buckets.find(txn, BUCKET).bucket_id

    def draw(self) -> bytes:
        return next(self._random).to_bytes(version_ids.RANDOM_BYTES, "big")

    def take(self, step: Put | Delete | Begin | Switch) -> None:
        match step:
            case Put(key, tags, wait):
                self.now += wait
                record = objects.ObjectRecord(
                    bucket=BUCKET, key=key, size_bytes=0, etag="e", modified_ns=self.now, tags=tags
                )
                made = versions.put_version(
                    self.txn, record, objects.NO_CONDITIONS, (), draw=self.draw
                )
                self._add(key, Held(made.version_id, self.now, tags))
            case Delete(key, wait):
                self.now += wait
                deletion = self.delete(key)
                if deletion.is_delete_marker:
                    self._add(key, Held(deletion.version_id, self.now, {}, True))
                else:
                    self.keys.pop(key, None)
            case Begin(key, wait):
                self.now += wait
                upload = objects.UploadRecord(
                    upload_id=f"u{self.now}", bucket=BUCKET, key=key, initiated_ns=self.now
                )
                uploads.create_upload(self.txn, upload)
                self.uploads.setdefault(key, []).append(Held(upload.upload_id, self.now, {}))
            case Switch(versioning):
                buckets.set_versioning(self.txn, BUCKET, versioning)
                self.versioning = versioning

    def delete(self, key: str) -> objects.Deletion:
        return versions.delete_version(
            self.txn, BUCKET, key, objects.NO_CONDITIONS, now_ns=self.now, draw=self.draw
        )

    def _add(self, key: str, new: Held) -> None:
        held = self.keys.get(key, []) if self.versioning is not objects.Versioning.NEVER else []
        if new.version_id == objects.NULL_VERSION:
            held = [each for each in held if each.version_id != new.version_id]
        self.keys[key] = [new, *held]

    # -- a pass ---------------------------------------------------------------------------------

    def expire(self, rules: list[lifecycle.Rule]) -> None:
        """What a pass does, on the lists."""
        active = [rule for rule in rules if rule.is_enabled]
        for key, held in list(self.keys.items()):
            left: list[Held] = []
            hides = False
            for number, each in enumerate(held):
                if number:
                    if not self._noncurrent_goes(active, key, each, held[number - 1], number - 1):
                        left.append(each)
                elif each.is_marker:
                    if len(held) > 1 or not self._marker_goes(active, key, each):
                        left.append(each)
                elif any(
                    _fits(rule, key, each) and self._is_past(each.written, rule.days)
                    for rule in active
                ):
                    hides = self.versioning is not objects.Versioning.NEVER
                    if hides:
                        left.append(each)
                else:
                    left.append(each)
            self.keys[key] = left
            if hides:
                marker_id = "?" if self.versioning is ENABLED else objects.NULL_VERSION
                self._add(key, Held(marker_id, self.now, {}, True))
            if not self.keys[key]:
                del self.keys[key]
        for key, held in list(self.uploads.items()):
            self.uploads[key] = [
                each
                for each in held
                if not any(
                    key.startswith(rule.filter.prefix or "")
                    and not rule.filter.tags
                    and self._is_past(each.written, rule.abort_days)
                    for rule in active
                )
            ]

    def _is_past(self, since: int, days: int | None) -> bool:
        return days is not None and since + days * DAY <= self.now

    def _noncurrent_goes(
        self, active: list[lifecycle.Rule], key: str, each: Held, newer: Held, count: int
    ) -> bool:
        return any(
            _fits(rule, key, each)
            and count >= (rule.newer_noncurrent_count or 0)
            and self._is_past(newer.written, rule.noncurrent_days)
            for rule in active
        )

    def _marker_goes(self, active: list[lifecycle.Rule], key: str, marker: Held) -> bool:
        return any(
            _fits(rule, key, marker)
            and (rule.removes_lone_markers or self._is_past(marker.written, rule.days))
            for rule in active
        )

    # -- what is there ---------------------------------------------------------------------------

    def listed(self) -> list[tuple[str, str, bool]]:
        """Key, id and whether it is a marker, as the catalogue lists them."""
        page = version_listing.list_versions(self.txn, objects.VersionQuery(bucket=BUCKET))
        known = {each.version_id for held in self.keys.values() for each in held}
        return [
            (
                each.key,
                each.version_id if each.version_id in known else "?",
                each.is_delete_marker,
            )
            for each in page.versions
        ]

    def expected(self) -> list[tuple[str, str, bool]]:
        return [
            (key, each.version_id, each.is_marker)
            for key in sorted(self.keys, key=str.encode)
            for each in self.keys[key]
        ]

    def listed_uploads(self) -> list[str]:
        page = uploads.list_uploads(self.txn, objects.UploadQuery(bucket=BUCKET))
        return [each.upload_id for each in page.uploads]


def _fits(rule: lifecycle.Rule, key: str, held: Held) -> bool:
    tags = rule.filter.tags
    has_tags = not held.is_marker and all(held.tags.get(name) == tags[name] for name in tags)
    return key.startswith(rule.filter.prefix or "") and (not tags or has_tags)


def _walk(world: World, judge: expiry.Judge, rows_max: int) -> list[expiry.Candidate]:
    found: list[expiry.Candidate] = []
    position: expiry_walk.Position | None = expiry_walk.BEGIN
    while position is not None:
        looked = expiry_walk.look(world.txn, world.bucket_id, judge, position, rows_max=rows_max)
        assert looked.rows_count <= rows_max + 2
        assert looked.following != position
        found += looked.candidates
        position = looked.following
    return found


@hypothesis.given(STEPS, RULES, st.lists(st.integers(0, 60), min_size=1, max_size=3))
@hypothesis.settings(max_examples=200)
def test_passes_take_away_what_rules_say_and_nothing_else(
    steps: list[Put | Delete | Begin | Switch], rules: list[lifecycle.Rule], waits: list[int]
) -> None:
    with memory_index.MemoryIndex().write() as txn:
        world = World(txn)
        for step in steps:
            world.take(step)
        bucket_lifecycle.put(txn, BUCKET, lifecycle.Configuration(rules=tuple(rules)))
        for wait in waits:
            world.now += wait
            judge = expiry.Judge(lifecycle.enabled(rules), world.now, CALENDAR)
            candidates = _walk(world, judge, 10_000)
            for rows_max in (1, 2, 5):
                assert _walk(world, judge, rows_max) == candidates
            done = expiry.expire(
                txn,
                BUCKET,
                world.bucket_id,
                candidates[::-1],
                now_ns=world.now,
                calendar=CALENDAR,
                draw=world.draw,
            )
            assert [each.candidate for each in done] == candidates[::-1]
            world.expire(rules)
            assert world.listed() == world.expected()
            assert list(usage.miscounted(txn)) == [], "a quota gets back what goes"
            left = {each.version_id for held in world.uploads.values() for each in held}
            assert set(world.listed_uploads()) == left
            again = expiry.expire(
                txn,
                BUCKET,
                world.bucket_id,
                candidates,
                now_ns=world.now,
                calendar=CALENDAR,
                draw=world.draw,
            )
            assert not again
