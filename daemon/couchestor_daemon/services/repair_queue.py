"""Shards that wait for repair: found by readers and by scrub, taken off when they are whole.

The records stand in the index by group, stripe offset and shard, so the queue of one group is a
range of keys, and a shard found twice waits once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port


def of_group(reader: index_port.IndexReader, group_id: int) -> Iterator[media_records.RepairRecord]:
    """Records of one group by stripe offset."""
    for _, value in reader.scan(*media_records.group_repairs_range(group_id)):
        yield media_records.unpack(media_records.RepairRecord, value)


def groups(reader: index_port.IndexReader, *, after: int = -1) -> Iterator[int]:
    """Groups that have records, by id; looks at one record of each."""
    _, stop = media_records.table_range(media_records.REPAIRS)
    start, _ = media_records.group_repairs_range(after + 1)
    while (first := next(iter(reader.scan(start, stop)), None)) is not None:
        group_id = media_records.unpack(media_records.RepairRecord, first[1]).group_id
        yield group_id
        _, start = media_records.group_repairs_range(group_id)


def key_of(record: media_records.RepairRecord) -> bytes:
    """Key of a record."""
    return media_records.repair_key(record.group_id, record.stripe_offset_bytes, record.shard_index)


def drop(records: Iterable[media_records.RepairRecord]) -> Callable[[index_port.IndexWriter], None]:
    """An operation body that takes records off."""
    keys = [key_of(record) for record in records]

    def apply(txn: index_port.IndexWriter) -> None:
        for key in keys:
            txn.delete(key)

    return apply


def delete_of_member(txn: index_port.IndexWriter, group_id: int, shard_index: int) -> None:
    """Take off every record of one member of a group."""
    for record in list(of_group(txn, group_id)):
        if record.shard_index == shard_index:
            txn.delete(key_of(record))


def delete_of_group(txn: index_port.IndexWriter, group_id: int) -> None:
    """Take off every record of a group."""
    for key, _ in list(txn.scan(*media_records.group_repairs_range(group_id))):
        txn.delete(key)
