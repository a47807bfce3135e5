"""What every ``ports.index.IndexStore`` must do, and what only shared memory can."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_daemon.adapters import lmdb_index, memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_domain import errors, units


@pytest.fixture(params=["lmdb", "memory"])
def store(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[index_port.IndexStore]:
    made: index_port.IndexStore
    if request.param == "lmdb":
        made = lmdb_index.LmdbIndex(tmp_path / "index", map_size_bytes=8 * units.MIB)
    else:
        made = memory_index.MemoryIndex()
    yield made
    made.close()


def fill_up(txn: index_port.IndexWriter) -> None:
    for number in range(1000):
        txn.put(b"n%d" % number, bytes(4096))
    txn.commit()


def put_all(store: index_port.IndexStore, *keys: bytes) -> None:
    with store.write() as txn:
        for key in keys:
            txn.put(key, b"v" + key)
        txn.commit()


def keys_of(reader: index_port.IndexReader, start: bytes, stop: bytes, **how: bool) -> list[bytes]:
    return [key for key, _ in reader.scan(start, stop, **how)]


def test_a_commit_is_seen_and_an_abort_is_not(store: index_port.IndexStore) -> None:
    put_all(store, b"a")
    with store.write() as txn:
        txn.put(b"b", b"1")
        assert txn.delete(b"a")
        assert txn.get(b"a") is None
    with store.read() as reader:
        assert reader.get(b"a") == b"va"
        assert reader.get(b"b") is None


def test_a_reader_keeps_its_snapshot(store: index_port.IndexStore) -> None:
    put_all(store, b"a", b"b")
    with store.read() as old:
        with store.write() as txn:
            txn.put(b"a", b"new")
            txn.delete(b"b")
            txn.put(b"c", b"c")
            with store.read() as during:
                assert during.get(b"a") == b"va"
            txn.commit()
        assert old.get(b"a") == b"va"
        assert keys_of(old, b"a", b"z") == [b"a", b"b"]
    with store.read() as fresh:
        assert fresh.get(b"a") == b"new"
        assert keys_of(fresh, b"a", b"z") == [b"a", b"c"]


@pytest.mark.parametrize("writing", [False, True])
def test_scans_are_half_open_and_ordered(store: index_port.IndexStore, writing: bool) -> None:
    put_all(store, b"a", b"a\x00", b"b", b"c", b"\xff\xff")
    with store.write() if writing else store.read() as reader:
        assert keys_of(reader, b"a", b"c") == [b"a", b"a\x00", b"b"]
        assert keys_of(reader, b"a", b"c", reverse=True) == [b"b", b"a\x00", b"a"]
        assert keys_of(reader, b"b", b"\xff\xff\xff", reverse=True) == [b"\xff\xff", b"c", b"b"]
        assert keys_of(reader, b"c", b"a") == []
        assert keys_of(reader, b"aa", b"ab", reverse=True) == []


KEYS = st.binary(min_size=1, max_size=5) | st.text("ab", min_size=1, max_size=3).map(str.encode)


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    max_examples=40,
    deadline=None,
)
@hypothesis.given(pairs=st.dictionaries(KEYS, st.binary(max_size=9)), start=KEYS, stop=KEYS)
def test_scans_give_the_bytewise_order_in_both_directions(
    store: index_port.IndexStore, pairs: dict[bytes, bytes], start: bytes, stop: bytes
) -> None:
    wanted = sorted(item for item in pairs.items() if start <= item[0] < stop)
    with store.write() as txn:
        for key, value in pairs.items():
            txn.put(key, value)
        assert list(txn.scan(start, stop)) == wanted
        assert list(txn.scan(start, stop, reverse=True)) == wanted[::-1]


def test_a_writer_scans_its_own_changes(store: index_port.IndexStore) -> None:
    put_all(store, b"a", b"b", b"c")
    with store.write() as txn:
        txn.delete(b"b")
        txn.put(b"bb", b"1")
        txn.put(b"c", b"2")
        assert list(txn.scan(b"a", b"d")) == [(b"a", b"va"), (b"bb", b"1"), (b"c", b"2")]
        assert keys_of(txn, b"a", b"d", reverse=True) == [b"c", b"bb", b"a"]
        assert not txn.delete(b"b")


def test_keys_have_1_to_511_bytes(store: index_port.IndexStore) -> None:
    put_all(store, b"k" * index_port.KEY_BYTES_MAX)
    with store.write() as txn:
        for key in (b"", b"k" * (index_port.KEY_BYTES_MAX + 1)):
            with pytest.raises(ValueError, match="key"):
                txn.put(key, b"")
            # Names and ids from clients may be of any length.
            assert txn.get(key) is None


def test_empty_values_are_values(store: index_port.IndexStore) -> None:
    with store.write() as txn:
        txn.put(b"a", b"")
        txn.commit()
    with store.read() as reader:
        assert reader.get(b"a") == b""


def test_a_second_writer_waits(store: index_port.IndexStore) -> None:
    order: list[str] = []

    def second() -> None:
        with store.write() as txn:
            order.append("second")
            assert txn.get(b"a") == b"1"

    with store.write() as txn:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
        txn.put(b"a", b"1")
        txn.commit()
        # The commit ends the writer, not the end of the block.
        thread.join(10)
    assert order == ["first", "second"]


def test_sequences_rise_above_the_floor_and_never_repeat(store: index_port.IndexStore) -> None:
    with store.write():
        drawn = [store.next_sequence(floor) for floor in (0, 0, 100, 5, 1 << 40, 0)]
    assert drawn == [1, 2, 101, 102, (1 << 40) + 1, (1 << 40) + 2]


def test_a_crash_of_the_memory_index_drops_the_writer() -> None:
    store = memory_index.MemoryIndex()
    writer = store.write()
    writer.put(b"a", b"1")
    store.crash()
    with store.write() as txn:
        assert txn.get(b"a") is None


def test_a_full_lmdb_index_says_so_and_goes_on_reading(tmp_path: pathlib.Path) -> None:
    store = lmdb_index.LmdbIndex(tmp_path / "index", map_size_bytes=units.MIB // 4)
    put_all(store, b"a")
    with store.write() as txn, pytest.raises(errors.IndexFullError):
        fill_up(txn)
    with store.read() as reader:
        assert reader.get(b"a") == b"va"
        assert reader.get(b"n0") is None
    store.close()


def test_a_damaged_lmdb_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index"
    path.mkdir()
    (path / "data.mdb").write_bytes(b"\x55" * 16384)
    with pytest.raises(errors.IndexCorruptError, match="couchestor recover"):
        lmdb_index.LmdbIndex(path, map_size_bytes=units.MIB)


def test_content_and_sequence_survive_a_close(tmp_path: pathlib.Path) -> None:
    for expected in (1, 2):
        store = lmdb_index.LmdbIndex(tmp_path / "index", map_size_bytes=units.MIB)
        with store.write() as txn:
            assert store.next_sequence(0) == expected
            txn.put(b"n%d" % expected, b"")
            txn.commit()
        with store.read() as reader:
            assert len(keys_of(reader, b"n", b"o")) == expected
        store.sync()
        store.close()


HOLDER = """
import pathlib, sys, time
from couchestor_daemon.adapters import lmdb_index
store = lmdb_index.LmdbIndex(pathlib.Path(sys.argv[1]), map_size_bytes=8 << 20)
with store.write() as txn:
    txn.put(b"committed", b"1")
    txn.commit()
reader = store.read()
writer = store.write()
writer.put(b"lost", b"1")
print(store.next_sequence(0), flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "1\n"
            store = lmdb_index.LmdbIndex(path, map_size_bytes=8 * units.MIB)
            got_it = threading.Event()

            def take() -> None:
                with store.write() as txn:
                    got_it.set()
                    assert txn.get(b"lost") is None
                    txn.put(b"mine", b"1")
                    # Drawn by the process that died before it could commit.
                    assert store.next_sequence(0) == 2
                    txn.commit()

            thread = threading.Thread(target=take)
            thread.start()
            assert not got_it.wait(0.1)
        finally:
            holder.send_signal(signal.SIGKILL)
    thread.join(10)
    assert got_it.is_set()
    with store.read() as reader:
        assert reader.get(b"committed") == b"1"
        assert reader.get(b"mine") == b"1"
        assert reader.get(b"lost") is None
    store.close()


def test_no_map_of_lmdb_lies_in_a_hole(tmp_path: pathlib.Path) -> None:
    """A store into a hole of a full file system ends the process."""
    store = lmdb_index.LmdbIndex(tmp_path / "index", map_size_bytes=units.MIB)
    for name in (lmdb_index.LOCK_NAME, "sequence"):
        found = (tmp_path / "index" / name).stat()
        assert found.st_size
        assert found.st_blocks * 512 >= found.st_size, name
    store.close()


CHANGES = """
import pathlib, sys
from couchestor_daemon.adapters import lmdb_index
store = lmdb_index.LmdbIndex(pathlib.Path(sys.argv[1]), map_size_bytes=8 << 20)
for number in range(20):
    with store.write() as txn:
        txn.put(b"a", b"%d" % number)
        txn.commit()
store.close()
"""


def test_a_snapshot_outlives_changes_of_another_process_also_after_a_sync(
    tmp_path: pathlib.Path,
) -> None:
    """The other one must see that this one lives, or it reuses the pages that are read here."""
    path = tmp_path / "index"
    store = lmdb_index.LmdbIndex(path, map_size_bytes=8 * units.MIB)
    put_all(store, b"a")
    with store.read() as old:
        store.sync()
        subprocess.run([sys.executable, "-c", CHANGES, str(path)], check=True, timeout=30)
        assert old.get(b"a") == b"va"
    with store.read() as fresh:
        assert fresh.get(b"a") == b"19"
    store.close()
