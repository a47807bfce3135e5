"""What a bucket's lifecycle takes away: judged, and taken away, in one transaction of the index.

Whoever walks over a bucket finds candidates in a snapshot (``expiry_walk``). Here each is judged
again under the write lock, by the rules and the versions that there are then. So what was written,
tagged or kept by another rule meanwhile stays, and what goes is the version that was found.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    bucket_lifecycle,
    buckets,
    history,
    uploads,
    version_locks,
    version_parts,
    versions,
)
from couchestor_domain import errors, lifecycle, objects


class Kind(enum.Enum):
    """What something is that expires."""

    CURRENT = "current"
    NONCURRENT = "noncurrent"
    MARKER = "marker"
    """A delete marker that is its key's only version."""
    UPLOAD = "upload"


class Candidate(NamedTuple):
    """Something that a walk found due."""

    kind: Kind
    key: str
    version_id: str = ""
    """Or the id of an upload."""
    order: int = 0
    modified_ns: int = 0
    parts_count: int = 0
    """How much there is to drop, about."""

    @classmethod
    def of_version(cls, kind: Kind, key: str, stored: index_records.Object) -> Candidate:
        """A version."""
        return cls(
            kind,
            key,
            stored.version_id,
            history.order_of(stored),
            stored.modified_ns,
            stored.part_count,
        )

    def is_still(self, stored: index_records.Object | None) -> bool:
        """Whether it is the version that was found, not one written since."""
        return stored is not None and (
            self.version_id,
            self.order,
            self.modified_ns,
        ) == (stored.version_id, history.order_of(stored), stored.modified_ns)


class Expired(NamedTuple):
    """What was done to one candidate."""

    candidate: Candidate
    rule_id: str
    size_bytes: int
    is_hidden: bool = False
    """It was hidden behind a delete marker; else it is gone for good."""


class Judge(NamedTuple):
    """The rules of a bucket at one moment."""

    rules: Sequence[lifecycle.Rule]
    """Enabled ones."""
    now_ns: int
    calendar: lifecycle.Calendar

    def current(self, key: str, stored: index_records.Object) -> lifecycle.Due | None:
        """The rule by which a current version is due."""
        return self._past(
            lifecycle.current_due(self.rules, key, _facts(stored), self.calendar),
        )

    def noncurrent(
        self, key: str, stored: index_records.Object, *, since_ns: int, newer_count: int
    ) -> lifecycle.Due | None:
        """The rule by which a version that is not current is due; none while it is locked."""
        if version_locks.is_kept(stored, now_ns=self.now_ns):
            return None
        return self._past(
            lifecycle.noncurrent_due(
                self.rules,
                key,
                None if stored.is_delete_marker else _facts(stored),
                since_ns=since_ns,
                newer_count=newer_count,
                calendar=self.calendar,
            )
        )

    def marker(self, key: str, stored: index_records.Object) -> lifecycle.Due | None:
        """The rule by which a delete marker is due that is its key's only version."""
        return self._past(
            lifecycle.lone_marker_due(
                self.rules, key, modified_ns=stored.modified_ns, calendar=self.calendar
            )
        )

    def upload(self, key: str, initiated_ns: int) -> lifecycle.Due | None:
        """The rule by which an upload is due."""
        return self._past(
            lifecycle.upload_due(self.rules, key, initiated_ns=initiated_ns, calendar=self.calendar)
        )

    def _past(self, due: lifecycle.Due | None) -> lifecycle.Due | None:
        return due if due is not None and due.at_ns <= self.now_ns else None


def expire(
    txn: index_port.IndexWriter,
    bucket: str,
    bucket_id: int,
    candidates: Sequence[Candidate],
    *,
    now_ns: int,
    calendar: lifecycle.Calendar,
    draw: versions.DrawRandom,
) -> list[Expired]:
    """Judge each candidate again, and remove what is due.

    Args:
        bucket_id: Of the bucket that was walked over; one made anew since is another.

    Returns:
        What was done; nothing for a candidate that is not, or no longer, due.
    """
    try:
        found = buckets.find(txn, bucket)
    except errors.NoSuchBucketError:
        return []
    configuration = bucket_lifecycle.of_bucket(txn, found)
    if found.bucket_id != bucket_id or configuration is None:
        return []
    judge = Judge(lifecycle.enabled(configuration.rules), now_ns, calendar)
    done: list[Expired] = []
    for each in candidates:
        expired: Expired | None
        match each.kind:
            case Kind.CURRENT:
                expired = _current(txn, bucket, found, each, judge, draw)
            case Kind.NONCURRENT:
                expired = _noncurrent(txn, found, each, judge)
            case Kind.MARKER:
                expired = _marker(txn, found, each, judge)
            case Kind.UPLOAD:
                expired = _upload(txn, bucket, found, each, judge)
        if expired is not None:
            done.append(expired)
    return done


def _current(
    txn: index_port.IndexWriter,
    bucket: str,
    found: index_records.Bucket,
    candidate: Candidate,
    judge: Judge,
    draw: versions.DrawRandom,
) -> Expired | None:
    stored = versions.find(txn, found.bucket_id, candidate.key.encode())
    if stored is None or not candidate.is_still(stored):
        return None
    due = judge.current(candidate.key, stored)
    if due is None:
        return None
    deletion = versions.delete_version(
        txn,
        bucket,
        candidate.key,
        objects.NO_CONDITIONS,
        owner=found.owner,
        now_ns=judge.now_ns,
        draw=draw,
    )
    return Expired(candidate, due.rule_id, stored.size_bytes, deletion.is_delete_marker)


def _noncurrent(
    txn: index_port.IndexWriter,
    found: index_records.Bucket,
    candidate: Candidate,
    judge: Judge,
) -> Expired | None:
    key = candidate.key.encode()
    list_id = history.find_list(txn, found.bucket_id, key)
    stored = None if list_id is None else history.at(txn, list_id, candidate.order)
    if list_id is None or stored is None or not candidate.is_still(stored):
        return None
    current = versions.find(txn, found.bucket_id, key)
    successor = history.successor(txn, list_id, candidate.order) or current
    if successor is None:
        return None  # Everything newer is gone: it is what the key has.
    newer_count = 0
    counted_max = lifecycle.newer_counted_max(judge.rules)
    for newer in history.entries(txn, list_id) if counted_max else ():
        if newer_count > counted_max or history.order_of(newer) <= candidate.order:
            break
        newer_count += 1
    if current is None and newer_count:
        newer_count -= 1  # The newest of them, a delete marker, stands for the current version.
    due = judge.noncurrent(
        candidate.key, stored, since_ns=successor.modified_ns, newer_count=newer_count
    )
    if due is None:
        return None
    version_parts.drop(txn, found, stored)
    history.remove(txn, found.bucket_id, key, stored)
    return Expired(candidate, due.rule_id, stored.size_bytes)


def _marker(
    txn: index_port.IndexWriter,
    found: index_records.Bucket,
    candidate: Candidate,
    judge: Judge,
) -> Expired | None:
    key = candidate.key.encode()
    list_id = history.find_list(txn, found.bucket_id, key)
    if list_id is None or versions.find(txn, found.bucket_id, key) is not None:
        return None
    entries = history.entries(txn, list_id)
    stored = next(entries, None)
    if stored is None or not candidate.is_still(stored) or next(entries, None) is not None:
        return None
    due = judge.marker(candidate.key, stored) if stored.is_delete_marker else None
    if due is None:
        return None
    history.remove(txn, found.bucket_id, key, stored)
    return Expired(candidate, due.rule_id, 0)


def _upload(
    txn: index_port.IndexWriter,
    bucket: str,
    found: index_records.Bucket,
    candidate: Candidate,
    judge: Judge,
) -> Expired | None:
    value = txn.get(index_keys.upload(candidate.version_id))
    if value is None:
        return None
    stored = index_records.unpack(index_records.Upload, value)
    if (stored.bucket_id, stored.key) != (found.bucket_id, candidate.key):
        return None
    due = judge.upload(candidate.key, stored.initiated_ns)
    if due is None:
        return None
    uploads.abort_upload(txn, bucket, candidate.key, candidate.version_id)
    return Expired(candidate, due.rule_id, 0)


def _facts(stored: index_records.Object) -> lifecycle.Version:
    return lifecycle.Version(stored.size_bytes, stored.modified_ns, stored.tags)
