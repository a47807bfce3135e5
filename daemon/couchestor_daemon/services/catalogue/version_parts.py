"""What a version owns beside its entry: parts that are stored apart, extents, its receipt."""

from __future__ import annotations

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import l2p, usage
from couchestor_domain import errors


def drop(
    txn: index_port.IndexWriter, bucket: index_records.Bucket, old: index_records.Object
) -> None:
    """Remove everything an old version owns except its entry; its bucket holds that much less."""
    if not old.is_delete_marker:
        usage.add(txn, bucket, size_bytes=-old.size_bytes, objects_count=-1)
    if old.parts_id:
        parts = of(txn, old)
        l2p.punch_all(
            txn, index_records.extents([extent for part in parts for extent in part.extents])
        )
        start = index_keys.namespace(index_keys.OBJECT_PARTS, old.parts_id)
        stop = index_keys.namespace_stop(index_keys.OBJECT_PARTS, old.parts_id)
        for key in [key for key, _ in txn.scan(start, stop)]:
            txn.delete(key)
    else:
        l2p.punch_all(txn, index_records.extents(old.extents))
    if old.upload_id:
        txn.delete(index_keys.completed(old.upload_id))


def of(reader: index_port.IndexReader, stored: index_records.Object) -> list[index_records.Part]:
    """The parts that are stored apart; none for other versions. Raises IndexCorruptError."""
    if not stored.parts_id:
        return []
    start = index_keys.namespace(index_keys.OBJECT_PARTS, stored.parts_id)
    stop = index_keys.namespace_stop(index_keys.OBJECT_PARTS, stored.parts_id)
    parts = [
        part
        for _, value in reader.scan(start, stop)
        for part in index_records.unpack(index_records.PartPage, value).parts
    ]
    if len(parts) != stored.part_count:
        raise errors.IndexCorruptError(
            f"the index holds {len(parts)} of {stored.part_count} parts of an object; "
            "run `couchestor recover`"
        )
    return parts
