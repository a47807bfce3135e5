"""The work that puts lifecycle rules into effect, on a node without processes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import stripe_node

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.services import commit_log, expiration
from couchestor_daemon.services.catalogue import buckets, expiry
from couchestor_domain import errors, events, lifecycle, objects

NS = 10**9
DAY = 100 * NS
LARGE = 400_000
ENABLED = objects.Versioning.ENABLED


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1000

    def now_ns(self) -> int:
        return self.seconds * NS

    def monotonic_seconds(self) -> float:
        return float(self.seconds)


class Aging:
    """A node with buckets, and the work."""

    def __init__(self, **options: Any) -> None:
        self.node = stripe_node.StripeNode(zone_count=60)
        self.clock = Clock()
        self.node.store._clock = self.clock
        self.paced: list[int] = []
        self.fail_with: list[errors.CouchestorError] = []
        self.done: list[expiry.Expired] = []
        self.passes = 0
        self.before_commit: Any = None
        self.work = expiration.Expiration(
            index=self.node.index,
            submit=self._submit,
            publisher=self.node,
            clock=self.clock,
            draw=lambda: b"123456789012",
            pace=self._pace,
            interval_seconds=60.0,
            calendar=lifecycle.Calendar(DAY),
            on_done=self.done.extend,
            on_pass=self._count_pass,
            **options,
        )

    def _count_pass(self) -> None:
        self.passes += 1

    async def _pace(self, bytes_count: int) -> None:
        self.paced.append(bytes_count)

    async def _submit(self, operation: commit_log.Operation) -> object:
        if self.fail_with:
            raise self.fail_with.pop(0)
        if self.before_commit is not None:
            change, self.before_commit = self.before_commit, None
            await change()
        return await self.node.commits.submit(operation)

    async def bucket(self, name: str, *rules: lifecycle.Rule) -> None:
        await self.node.store.create_bucket(name=name, owner="ada", region="r")
        if rules:
            await self.node.store.put_lifecycle(
                bucket=name, configuration=lifecycle.Configuration(rules=rules)
            )

    async def put(self, bucket: str, key: str, size: int = 10, **more: Any) -> None:
        request = objects.PutRequest(bucket=bucket, key=key, **more)
        await self.node.store.put_object(request, stripe_node.Body(b"x" * size))

    async def keys(self, bucket: str) -> list[str]:
        page = await self.node.store.list_objects(objects.ListQuery(bucket=bucket))
        return [each.key for each in page.objects]

    async def whole_pass(self) -> float:
        """Until it has nothing to do for a while. Returns for how long."""
        before = self.passes
        for _ in range(1000):
            wait_seconds = await self.work.step()
            if self.passes > before:
                return wait_seconds
        raise AssertionError("a pass without an end")

    def told(self) -> list[events.DomainEvent]:
        return [each for each in self.node.published if isinstance(each, events.LifecycleApplied)]


def _rule(**more: Any) -> lifecycle.Rule:
    given = {"rule_id": "r", "is_enabled": True, "filter": lifecycle.Filter(), **more}
    return lifecycle.Rule(**given)


async def test_a_pass_empties_buckets_of_what_is_due_and_tells_it() -> None:
    aging = Aging(rows_per_step_max=3)
    await aging.bucket("a", _rule(days=1))
    await aging.bucket("b")
    await aging.bucket("c", _rule(days=9), _rule(is_enabled=False, days=1))
    await aging.bucket("d", _rule(days=1, filter=lifecycle.Filter(prefix="tmp/")))
    for name in "abcd":
        for number in range(7):
            await aging.put(name, f"tmp/{number}")
    await aging.put("a", "large", LARGE)
    await aging.put("d", "kept")
    assert await aging.whole_pass() == 60.0
    assert not aging.done
    aging.clock.seconds += 100
    await aging.whole_pass()
    assert [await aging.keys(name) for name in "ad"] == [[], ["kept"]]
    assert [len(await aging.keys(name)) for name in "bc"] == [7, 7]
    assert aging.told() == [
        events.LifecycleApplied(
            bucket=name,
            removed_versions_count=count,
            hidden_versions_count=0,
            removed_markers_count=0,
            aborted_uploads_count=0,
            removed_bytes=size,
        )
        for name, count, size in (("a", 8, 70 + LARGE), ("d", 7, 70))
    ]
    assert sum(aging.paced) == 15 * expiration.COMMIT_BYTES_ASSUMED
    await aging.whole_pass()
    assert len(aging.told()) == 2


async def test_passes_begin_at_intervals_however_long_they_take() -> None:
    aging = Aging()
    await aging.bucket("a", _rule(days=1))
    await aging.put("a", "k")
    aging.clock.seconds += 100

    async def slow() -> None:
        aging.clock.seconds += 25

    aging.before_commit = slow
    assert await aging.whole_pass() == 35.0


async def test_an_object_that_a_client_writes_meanwhile_is_kept() -> None:
    aging = Aging()
    await aging.bucket("a", _rule(days=1))
    await aging.put("a", "k")
    await aging.put("a", "other")
    aging.clock.seconds += 100
    aging.before_commit = lambda: aging.put("a", "k", 20)
    await aging.whole_pass()
    assert await aging.keys("a") == ["k"]
    record = await aging.node.store.get_object(bucket="a", key="k")
    assert record.size_bytes == 20


async def test_the_oldest_versions_go_first_so_that_each_goes_by_its_own_rule() -> None:
    aging = Aging()
    short = _rule(noncurrent_days=1, filter=lifecycle.Filter(tags={"t": "short"}))
    long = _rule(noncurrent_days=5, filter=lifecycle.Filter(tags={"t": "long"}))
    await aging.bucket("a", short, long)
    await aging.node.store.set_versioning(bucket="a", versioning=ENABLED)
    await aging.put("a", "k", tags={"t": "long"})
    await aging.put("a", "k", tags={"t": "short"})
    aging.clock.seconds += 400
    await aging.put("a", "k")
    aging.clock.seconds += 100
    # The oldest has been noncurrent for 500 seconds, but for 100 of the newest only.
    await aging.whole_pass()
    assert aging.told()[0].removed_versions_count == 2  # type: ignore[attr-defined]


async def test_uploads_markers_and_hidden_versions_are_told_apart() -> None:
    aging = Aging()
    await aging.bucket("a", _rule(days=1, abort_days=1), _rule(removes_lone_markers=True))
    await aging.node.store.set_versioning(bucket="a", versioning=ENABLED)
    await aging.put("a", "k")
    await aging.node.store.delete_object(
        bucket="a", key="never", conditions=objects.NO_CONDITIONS, owner="ada"
    )
    await aging.node.store.create_upload(
        objects.PutRequest(bucket="a", key="parts"), checksum_algorithm="", checksum_type=""
    )
    aging.clock.seconds += 100
    await aging.whole_pass()
    (told,) = aging.told()
    assert isinstance(told, events.LifecycleApplied)
    counts = (
        told.removed_versions_count,
        told.hidden_versions_count,
        told.removed_markers_count,
        told.aborted_uploads_count,
    )
    assert counts == (0, 1, 1, 1)


async def test_what_could_not_be_committed_is_looked_at_again() -> None:
    aging = Aging(rows_per_step_max=2)
    await aging.bucket("a", _rule(days=1))
    for number in range(5):
        await aging.put("a", f"{number}")
    aging.clock.seconds += 100
    await aging.work.step()
    aging.fail_with = [errors.StoreReadOnlyError("too few")]
    with pytest.raises(errors.StoreReadOnlyError):
        await aging.work.step()
    await aging.whole_pass()
    assert await aging.keys("a") == []


async def test_a_damaged_version_does_not_keep_the_others() -> None:
    aging = Aging()
    await aging.bucket("a", _rule(days=1))
    for key in ("1", "2", "3"):
        await aging.put("a", key)
    with aging.node.index.write() as txn:
        bucket_id = buckets.find(txn, "a").bucket_id
        name = index_keys.namespace(index_keys.OBJECTS, bucket_id) + b"2"
        stored = index_records.unpack(index_records.Object, txn.get(name) or b"")
        # Its parts are said to be elsewhere, where there are none.
        damaged = msgspec.structs.replace(stored, parts_id=999, part_count=3)
        txn.put(name, index_records.pack(damaged))
        txn.commit()
    aging.clock.seconds += 100
    await aging.whole_pass()
    assert await aging.keys("a") == ["2"]


async def test_a_thousand_parts_are_dropped_in_commits_of_bounded_size() -> None:
    candidates = [
        expiry.Candidate(expiry.Kind.CURRENT, f"{number}", parts_count=parts)
        for number, parts in enumerate([0, 5000, 0, 0, 1000, 100, *[0] * 200])
    ]
    sizes = [len(batch) for batch in expiration._batches(candidates)]
    assert sizes == [1, 1, 3, 128, 73]


async def test_a_bucket_with_many_rules_is_looked_at_in_smaller_pieces() -> None:
    aging = Aging()
    rules = [_rule(rule_id=str(number), days=9) for number in range(999)]
    await aging.bucket("a", *rules, _rule(days=1, filter=lifecycle.Filter(prefix="x")))
    for number in range(70):
        await aging.put("a", f"x{number}")
    aging.clock.seconds += 100
    await aging.work.step()
    assert 60 < len(aging.done) < 70
    await aging.whole_pass()
    assert await aging.keys("a") == []


async def test_a_bucket_that_goes_away_meanwhile_is_no_error() -> None:
    aging = Aging(rows_per_step_max=2)
    await aging.bucket("a", _rule(days=1))
    await aging.bucket("b", _rule(days=1))
    for name in "ab":
        for number in range(5):
            await aging.put(name, f"{number}")
    aging.clock.seconds += 100
    await aging.work.step()

    async def delete() -> None:
        doomed = [objects.Doomed(key=key) for key in await aging.keys("a")]
        await aging.node.store.delete_objects(bucket="a", doomed=doomed)
        await aging.node.store.delete_bucket(name="a")

    aging.before_commit = delete
    await aging.whole_pass()
    assert await aging.keys("b") == []


async def test_space_of_what_expired_is_given_back() -> None:
    aging = Aging()
    await aging.bucket("a", _rule(days=1))
    await aging.put("a", "k", LARGE)
    with aging.node.index.read() as reader:
        before = [value for _, value in reader.scan(index_keys.LIVE_BYTES, b"m")]
    aging.clock.seconds += 100
    await aging.whole_pass()
    with aging.node.index.read() as reader:
        after = [value for _, value in reader.scan(index_keys.LIVE_BYTES, b"m")]
    assert before
    assert all(not int.from_bytes(value, "big") for value in after)
