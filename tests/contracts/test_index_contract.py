"""One suite over every index adapter."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from couchestor_daemon.adapters import lmdb_index, memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_domain import errors, units

keys = st.binary(min_size=1, max_size=24)


@pytest.fixture(params=["lmdb", "memory"])
def index(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[index_port.IndexStore]:
    store: index_port.IndexStore
    if request.param == "lmdb":
        store = lmdb_index.LmdbIndex(tmp_path / "index", map_size_bytes=64 * units.MIB)
    else:
        store = memory_index.MemoryIndex()
    yield store
    store.close()


def fill(index: index_port.IndexStore, pairs: dict[bytes, bytes]) -> None:
    with index.write() as txn:
        for key, value in pairs.items():
            txn.put(key, value)
        txn.commit()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.dictionaries(keys, st.binary(max_size=40), max_size=30), keys, keys)
def test_scans_give_the_bytewise_order_in_both_directions(
    index: index_port.IndexStore, pairs: dict[bytes, bytes], start: bytes, stop: bytes
) -> None:
    with index.write() as txn:
        for key in [key for key, _ in txn.scan(b"\0", b"\xff" * 25)]:
            txn.delete(key)
        for key, value in pairs.items():
            txn.put(key, value)
        txn.commit()
    expected = sorted(item for item in pairs.items() if start <= item[0] < stop)
    with index.read() as reader:
        assert list(reader.scan(start, stop)) == expected
        assert list(reader.scan(start, stop, reverse=True)) == expected[::-1]


def test_a_reader_keeps_its_snapshot_and_the_next_sees_the_commit(
    index: index_port.IndexStore,
) -> None:
    fill(index, {b"k": b"old"})
    with index.read() as before:
        fill(index, {b"k": b"new"})
        assert before.get(b"k") == b"old"
    with index.read() as after:
        assert after.get(b"k") == b"new"


def test_a_writer_sees_its_own_writes_and_leaves_nothing_when_not_committed(
    index: index_port.IndexStore,
) -> None:
    fill(index, {b"a": b"1"})
    with index.write() as txn:
        txn.put(b"b", b"2")
        assert txn.delete(b"a")
        assert not txn.delete(b"a")
        assert txn.get(b"a") is None
        assert list(txn.scan(b"a", b"z")) == [(b"b", b"2")]
    with index.read() as reader:
        assert list(reader.scan(b"a", b"z")) == [(b"a", b"1")]


def test_writers_take_turns(index: index_port.IndexStore) -> None:
    def count() -> None:
        for _ in range(50):
            with index.write() as txn:
                value = txn.get(b"n") or b"0"
                txn.put(b"n", b"%d" % (int(value) + 1))
                txn.commit()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with index.read() as reader:
        assert reader.get(b"n") == b"200"


def test_sequences_rise_above_the_floor_and_are_never_given_twice(
    index: index_port.IndexStore,
) -> None:
    assert index.next_sequence(0) == 1
    assert index.next_sequence(0) == 2
    assert index.next_sequence(100) == 101
    assert index.next_sequence(5) == 102


def test_long_keys_are_held_up_to_the_limit(index: index_port.IndexStore) -> None:
    fill(index, {b"x" * index_port.KEY_BYTES_MAX: b"v"})
    with index.write() as txn, pytest.raises(ValueError, match="511"):
        txn.put(b"x" * (index_port.KEY_BYTES_MAX + 1), b"v")


def test_a_full_map_is_a_typed_error_and_loses_nothing(tmp_path: pathlib.Path) -> None:
    store = lmdb_index.LmdbIndex(tmp_path / "small", map_size_bytes=256 * units.KIB)
    fill(store, {b"kept": b"v"})
    with pytest.raises(errors.IndexFullError, match="full"):
        fill(store, {b"%d" % number: b"v" * 500 for number in range(10_000)})
    with store.read() as reader:
        assert reader.get(b"kept") == b"v"
        assert reader.get(b"1") is None
    store.close()


def test_what_is_not_an_index_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not an index" * 1000)
    with pytest.raises(errors.IndexCorruptError, match="couchestor recover"):
        lmdb_index.LmdbIndex(tmp_path, map_size_bytes=units.MIB)
