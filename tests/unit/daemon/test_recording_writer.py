"""The writer that operations of a commit share behaves as the transaction it stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import recording_writer

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
WRITES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=12)
LOOKS = st.lists(st.booleans(), min_size=12, max_size=12)


def everything(reader: index_port.IndexReader) -> dict[bytes, bytes]:
    return dict(reader.scan(b"", b"z"))


@given(before=WRITES, writes=WRITES, looks=LOOKS)
def test_it_reads_and_leaves_what_a_plain_transaction_would(
    before: list[tuple[bytes, bytes | None]],
    writes: list[tuple[bytes, bytes | None]],
    looks: list[bool],
) -> None:
    plain, recorded, replayed = (memory_index.MemoryIndex() for _ in range(3))
    for store in (plain, recorded, replayed):
        with store.write() as txn:
            for key, value in before:
                if value is not None:
                    txn.put(key, value)
            txn.commit()
    with plain.write() as expected, recorded.write() as below:
        recorder = recording_writer.RecordingWriter(below)
        for (key, value), looks_around in zip(writes, looks, strict=False):
            if value is None:
                assert recorder.delete(key) == expected.delete(key)
            else:
                recorder.put(key, value)
                expected.put(key, value)
            assert recorder.get(key) == expected.get(key)
            if looks_around:
                assert everything(recorder) == everything(expected)
        recorder.carry_out()
        with replayed.write() as replay:
            for key, value in recorder.mutations:
                if value is None:
                    replay.delete(key)
                else:
                    replay.put(key, value)
            assert everything(replay) == everything(below) == everything(expected)


def test_a_key_written_often_is_logged_once() -> None:
    with memory_index.MemoryIndex().write() as txn:
        recorder = recording_writer.RecordingWriter(txn)
        for number in range(5):
            recorder.put(b"counter", b"%d" % number)
        assert list(recorder.mutations) == [(b"counter", b"4")]
        assert recorder.writes_count == 5


def test_a_delete_of_what_is_not_there_writes_nothing() -> None:
    with memory_index.MemoryIndex().write() as txn:
        recorder = recording_writer.RecordingWriter(txn)
        assert not recorder.delete(b"a")
        assert recorder.writes_count == 0
        assert list(recorder.mutations) == []
