"""Notices in the index: queued with what they tell of, delivered at least once, counted."""

from __future__ import annotations

import asyncio
import logging
import pathlib
from collections.abc import Callable, Sequence

import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import notice_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    index_audit,
    notice_delivery,
    notice_queue,
)
from couchestor_daemon.services.catalogue import buckets, versions
from couchestor_domain import errors, notices, objects

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "notice_v1.hex"
CAUSE = notices.Cause(
    requester="ada",
    source_ip="::1",
    request_id="r",
    host_id="h",
    region="us-east-1",
    bucket_owner="bob",
)
PLACE = commit_log.Placement(1, 0, 0)


def _announcement(*events: str, targets: Sequence[str] = ("hook",)) -> notices.Announcement:
    interests = tuple(notices.Interest(target, "c") for target in targets)
    return notices.Announcement(cause=CAUSE, interests=dict.fromkeys(events, interests))


class Store:
    """A bucket in an index, and its queue."""

    def __init__(self, *, waiting_max: int = 100) -> None:
        self.index = memory_index.MemoryIndex()
        self.now_ns = 1_000
        self.queue = notice_queue.NoticeQueue(lambda: self.now_ns, waiting_max=waiting_max)
        with self.index.write() as txn:
            buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=1)
            txn.commit()

    def put(self, key: str, *, targets: Sequence[str] = ("hook",)) -> None:
        """Write an object, and tell of it."""

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> objects.ObjectRecord:
            record = objects.ObjectRecord(
                bucket="b", key=key, size_bytes=0, etag="e", modified_ns=self.now_ns
            )
            return versions.put_version(
                txn, record, objects.NO_CONDITIONS, (), draw=lambda: b"123456789012"
            )

        told = self.queue.of_object(apply, _announcement(notices.CREATED_PUT, targets=targets))
        with self.index.write() as txn:
            told(txn, PLACE)
            txn.commit()

    def delete(self, key: str, *, version_id: str | None = None) -> None:
        """Delete, and tell of it."""
        doomed = objects.Doomed(
            key=key,
            version_id=version_id,
            announcement=_announcement(notices.REMOVED, notices.MARKED),
        )
        with self.index.write() as txn:
            self.queue.deleting(
                txn,
                "b",
                doomed,
                lambda: versions.delete_version(
                    txn,
                    "b",
                    key,
                    objects.NO_CONDITIONS,
                    version_id=version_id,
                    now_ns=self.now_ns,
                    draw=lambda: b"123456789012",
                ),
            )
            txn.commit()

    def waiting(self, target: str = "hook") -> list[notices.Notice]:
        with self.index.read() as reader:
            return [each.notice for each in notice_queue.waiting(reader, target, limit=1000)]

    def totals(self, target: str = "hook") -> tuple[int, int]:
        with self.index.read() as reader:
            return notice_queue.totals(reader, target)

    def findings(self) -> list[str]:
        with self.index.read() as reader:
            return [finding.text for finding in index_audit.notice_findings(reader)]

    async def submit(self, operation: commit_log.Operation) -> object:
        with self.index.write() as txn:
            result = operation.apply(txn, PLACE)
            txn.commit()
        return result


def _told(store: Store, target: str = "hook") -> list[tuple[str, str]]:
    return [(notice.event, notice.key) for notice in store.waiting(target)]


def test_golden_bytes() -> None:
    notice = notices.Notice(
        sequence=258,
        target="hook",
        configuration_id="c",
        event=notices.CREATED_PUT,
        time_ns=9,
        cause=CAUSE,
        bucket="b",
        key="ü",
        size_bytes=3,
        etag="e",
        version_id="v",
    )
    key, value = notice_records.key("hook", 258), notice_records.pack(notice)
    assert [key.hex(), value.hex()] == GOLDEN.read_text().split()
    assert notice_records.unpack(key, value) == notice
    assert notice_records.place_of(key) == ("hook", 258)
    for damaged in (b"", b"\x02" + value[1:], value[:-1]):
        with pytest.raises(errors.IndexCorruptError, match="notice 258 for hook"):
            notice_records.unpack(key, damaged)


def test_names_that_begin_alike_have_queues_of_their_own() -> None:
    store = Store()
    store.put("k", targets=("a", "a-b", "ab"))
    for target in ("a", "a-b", "ab"):
        assert _told(store, target) == [(notices.CREATED_PUT, "k")]
    assert [store.waiting(target)[0].sequence for target in ("a", "a-b", "ab")] == [1, 2, 3]
    assert store.findings() == []


def test_what_changes_nothing_is_told_to_nobody() -> None:
    store = Store()
    store.delete("k")
    store.delete("k", version_id="null")
    assert _told(store) == []
    store.put("k")
    store.delete("k")
    assert _told(store) == [(notices.CREATED_PUT, "k"), (notices.REMOVED, "k")]


def test_markers_and_versions_are_told_apart() -> None:
    store = Store()
    with store.index.write() as txn:
        buckets.set_versioning(txn, "b", objects.Versioning.ENABLED)
        txn.commit()
    store.delete("none")
    store.put("k")
    store.delete("k")
    created, marked = store.waiting()[1:]
    assert (marked.event, bool(marked.version_id)) == (notices.MARKED, True)
    # Of a marker that is removed for good, and a version.
    for version in (marked.version_id, created.version_id):
        store.delete("k", version_id=version)
        assert store.waiting()[-1].event == notices.REMOVED
        assert store.waiting()[-1].version_id == version
    store.delete("k", version_id=created.version_id)
    assert len(store.waiting()) == 5


def test_a_change_that_is_none_again_is_told_once() -> None:
    store = Store()
    record = objects.ObjectRecord(bucket="b", key="k", size_bytes=0, etag="e", modified_ns=1)
    made: list[objects.ObjectRecord] = []

    def apply(_: index_port.IndexWriter, __: commit_log.Placement) -> objects.ObjectRecord:
        made.append(record)
        return record

    told = store.queue.of_object(
        apply, _announcement(notices.CREATED_UPLOAD), unless=lambda _: bool(made)
    )
    with store.index.write() as txn:
        for _ in range(2):
            assert told(txn, PLACE) is record
        txn.commit()
    assert (len(made), len(store.waiting())) == (2, 1)


def test_beyond_the_limit_notices_are_lost_and_counted() -> None:
    store = Store(waiting_max=2)
    for number in range(5):
        store.put(f"k{number}")
    assert [key for _, key in _told(store)] == ["k0", "k1"]
    assert store.totals() == (2, 3)
    store.put("other", targets=("other",))
    assert store.totals("other") == (1, 0)
    with store.index.write() as txn:
        keys = [each.key for each in notice_queue.waiting(txn, "hook", limit=1)]
        notice_queue.remove(txn, "hook", keys)
        notice_queue.remove(txn, "hook", keys)
        txn.commit()
    assert store.totals() == (1, 3)
    assert store.findings() == []


def test_the_audit_finds_what_is_miscounted_and_damaged() -> None:
    store = Store()
    store.put("k")
    store.put("k", targets=("gone",))
    with store.index.write() as txn:
        totals = notice_records.pack_totals(notice_records.Totals(5, 0))
        txn.put(notice_records.totals_key("hook"), totals)
        txn.delete(notice_records.totals_key("gone"))
        txn.delete(notice_records.SEQUENCE_KEY)
        txn.commit()
    assert [text.partition(";")[0] for text in store.findings()] == [
        "notice 2 waits although 0 was the last one",
        "1 notices wait for hook, and 5 are counted",
        "1 notices wait for gone, and none is counted",
    ]
    with store.index.write() as txn:
        txn.put(notice_records.key("hook", 7), b"\x01nonsense")
        txn.commit()
    assert "cannot be read" in store.findings()[0]


# -- delivery ------------------------------------------------------------------------------------


class Taker:
    """A target that takes what ``refuses`` does not refuse."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.under_way = self.most_under_way = 0
        self.refuses: Callable[[str], str] = lambda _: ""

    async def deliver(self, message: bytes) -> str:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        key = message.decode()
        self.offered.append(key)
        return self.refuses(key)


def _delivery(
    store: Store, taker: Taker, seen: list[notice_delivery.Progress] | None = None
) -> notice_delivery.NoticeDelivery:
    return notice_delivery.NoticeDelivery(
        "hook",
        taker,
        index=store.index,
        encode=lambda notice: notice.key.encode(),
        submit=store.submit,
        now_ns=lambda: store.now_ns,
        on_progress=(seen if seen is not None else []).append,
    )


async def test_what_waits_is_delivered_and_leaves_the_queue() -> None:
    store, taker = Store(), Taker()
    seen: list[notice_delivery.Progress] = []
    delivery = _delivery(store, taker, seen)
    assert await delivery.step() > 0
    assert seen == [notice_delivery.Progress(0, 0, 0, 0, 0.0)]
    count = notice_delivery.WINDOW_COUNT + 3
    for number in range(count):
        store.put(f"k{number:03}")
    store.now_ns += 5_000_000_000
    assert await delivery.step() == 0.0
    assert seen[-1].oldest_age_seconds == 5.0
    assert await delivery.step() == 0.0
    assert await delivery.step() > 0
    assert sorted(taker.offered) == [f"k{number:03}" for number in range(count)]
    assert taker.most_under_way == notice_delivery.CONCURRENT_MAX
    assert (store.waiting(), store.totals()) == ([], (0, 0))
    assert sum(each.delivered_count for each in seen) == count


async def test_an_outage_is_told_once_and_waited_for_longer_and_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, taker = Store(), Taker()
    for number in range(3):
        store.put(f"k{number}")
    delivery = _delivery(store, taker)
    taker.refuses = lambda _: "no connection"
    waits = [await delivery.step() for _ in range(9)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    # All at first, in the outage one after the other beside the newest.
    assert taker.offered[3:] == [
        *("k0", "k2", "k1", "k2", "k2", "k0", "k2", "k1", "k2", "k2", "k0", "k2", "k1", "k2"),
    ]
    assert len(store.waiting()) == 3
    taker.refuses = lambda _: ""
    with caplog.at_level(logging.INFO):
        while store.waiting():
            await delivery.step()
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().partition(":")[0] for record in warned] == [
        "target hook of notices takes none"
    ]
    assert "takes them again" in caplog.text


async def test_a_notice_that_is_refused_holds_up_no_other() -> None:
    store, taker = Store(waiting_max=1000), Taker()
    bad = {f"bad{number}" for number in range(notice_delivery.WINDOW_COUNT)}
    for key in sorted(bad):
        store.put(key)
    for number in range(20):
        store.put(f"good{number}")
    taker.refuses = lambda key: "it answered 400" if key in bad else ""
    delivery = _delivery(store, taker)
    for _ in range(8):
        await delivery.step()
    assert {key for _, key in _told(store)} == bad
    store.put("late")
    for _ in range(3):
        await delivery.step()
    assert {key for _, key in _told(store)} == bad
    taker.refuses = lambda _: ""
    while store.waiting():
        await delivery.step()


async def test_a_commit_that_fails_delivers_again() -> None:
    store, taker = Store(), Taker()
    store.put("k")

    async def fails(_: commit_log.Operation) -> object:
        raise errors.StoreReadOnlyError("too few devices")

    delivery = notice_delivery.NoticeDelivery(
        "hook",
        taker,
        index=store.index,
        encode=lambda notice: notice.key.encode(),
        submit=fails,
        now_ns=lambda: store.now_ns,
        on_progress=lambda _: None,
    )
    with pytest.raises(errors.StoreReadOnlyError):
        await delivery.step()
    assert len(store.waiting()) == 1
    assert await _delivery(store, taker).step() == 0.0
    assert taker.offered == ["k", "k"]
    assert store.waiting() == []


async def test_what_nobody_foresaw_is_a_refusal() -> None:
    store, taker = Store(), Taker()
    store.put("bad")
    store.put("good")

    def refuses(key: str) -> str:
        if key == "bad":
            raise LookupError(key)
        return ""

    taker.refuses = refuses
    await _delivery(store, taker).step()
    assert [key for _, key in _told(store)] == ["bad"]


async def test_losses_are_told(caplog: pytest.LogCaptureFixture) -> None:
    store, taker = Store(waiting_max=1), Taker()
    taker.refuses = lambda _: "away"
    delivery = _delivery(store, taker)
    store.put("a")
    await delivery.step()
    store.put("b")
    store.put("c")
    await delivery.step()
    await delivery.step()
    assert caplog.text.count("2 notices for target hook are lost") == 1
