"""Rules of lifecycles as the index holds them, and where they stand in it."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import index_keys, lifecycle_records
from couchestor_daemon.services.catalogue import bucket_lifecycle, buckets
from couchestor_domain import errors, lifecycle

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
CONFIGURATION = lifecycle.Configuration(
    rules=(
        lifecycle.Rule(
            rule_id="old",
            is_enabled=True,
            filter=lifecycle.Filter(
                form=lifecycle.FilterForm.AND,
                prefix="logs/é",
                tags={"a": "1", "b": ""},
                larger_than_bytes=0,
                smaller_than_bytes=1 << 40,
            ),
            days=30,
            noncurrent_days=7,
            newer_noncurrent_count=3,
        ),
        lifecycle.Rule(
            rule_id="date",
            is_enabled=False,
            filter=lifecycle.Filter(form=lifecycle.FilterForm.PREFIX, prefix=""),
            date_ns=1_900_000_000 * 10**9,
            abort_days=1,
        ),
        lifecycle.Rule(
            rule_id="markers",
            is_enabled=True,
            filter=lifecycle.Filter(),
            removes_lone_markers=True,
        ),
    ),
    transition_minimum="varies_by_storage_class",
)


def test_golden_bytes() -> None:
    golden = (GOLDEN / "index_lifecycle_v1.hex").read_text().split()
    assert [lifecycle_records.pack(CONFIGURATION).hex()] == golden
    assert lifecycle_records.unpack(bytes.fromhex(golden[0])) == CONFIGURATION


@pytest.mark.parametrize("value", [b"", b"\x02\x90", b"\x01", b"\x01\x92\x91\x90\xa0", b"\x01\xc1"])
def test_what_is_no_lifecycle_is_told(value: bytes) -> None:
    with pytest.raises(errors.IndexCorruptError, match="lifecycle"):
        lifecycle_records.unpack(value)


NUMBERS = st.none() | st.integers(1, 1 << 40)
FILTERS = st.builds(
    lifecycle.Filter,
    form=st.sampled_from(lifecycle.FilterForm),
    prefix=st.none() | st.text(max_size=8),
    tags=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    larger_than_bytes=NUMBERS,
    smaller_than_bytes=NUMBERS,
)
RULES = st.builds(
    lifecycle.Rule,
    rule_id=st.text(max_size=9),
    is_enabled=st.booleans(),
    filter=FILTERS,
    days=NUMBERS,
    date_ns=NUMBERS,
    removes_lone_markers=st.none() | st.booleans(),
    noncurrent_days=NUMBERS,
    newer_noncurrent_count=NUMBERS,
    abort_days=NUMBERS,
)


@hypothesis.given(st.lists(RULES, max_size=4).map(tuple), st.sampled_from(["", "x"]))
def test_every_configuration_comes_back(rules: tuple[lifecycle.Rule, ...], minimum: str) -> None:
    given = lifecycle.Configuration(rules=rules, transition_minimum=minimum)
    assert lifecycle_records.unpack(lifecycle_records.pack(given)) == given


def test_a_bucket_tells_whether_it_has_rules() -> None:
    index = memory_index.MemoryIndex()
    with index.write() as txn:
        buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=1)
        assert bucket_lifecycle.get(txn, "b") is None
        bucket_lifecycle.put(txn, "b", None)
        for _ in range(2):
            bucket_lifecycle.put(txn, "b", CONFIGURATION, owner="ada")
            assert bucket_lifecycle.get(txn, "b") == CONFIGURATION
            assert buckets.get_bucket(txn, "b").has_lifecycle
        with pytest.raises(errors.NoSuchBucketError):
            bucket_lifecycle.put(txn, "b", None, owner="eve")
        bucket_lifecycle.put(txn, "b", None)
        assert bucket_lifecycle.get(txn, "b") is None
        assert not buckets.get_bucket(txn, "b").has_lifecycle
        assert not list(txn.scan(index_keys.SETTINGS, b"b"))


def test_a_bucket_made_anew_has_no_rules() -> None:
    index = memory_index.MemoryIndex()
    with index.write() as txn:
        buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=1)
        bucket_lifecycle.put(txn, "b", CONFIGURATION)
        buckets.delete_bucket(txn, "b")
        buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=2)
        assert bucket_lifecycle.get(txn, "b") is None


def test_rules_that_are_missing_are_told() -> None:
    index = memory_index.MemoryIndex()
    with index.write() as txn:
        buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=1)
        bucket_lifecycle.put(txn, "b", CONFIGURATION)
        txn.delete(index_keys.setting(buckets.find(txn, "b").bucket_id, "lifecycle"))
        with pytest.raises(errors.IndexCorruptError, match="lacks the lifecycle"):
            bucket_lifecycle.get(txn, "b")
