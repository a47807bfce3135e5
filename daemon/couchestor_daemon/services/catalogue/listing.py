"""Pages of a bucket's keys, common prefixes skipped over rather than read."""

from __future__ import annotations

from collections.abc import Iterator

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, key_space
from couchestor_domain import objects

Entry = tuple[bytes, bytes | None]
"""A key and its value, or a common prefix and None."""


def list_objects(reader: index_port.IndexReader, query: objects.ListQuery) -> objects.ListPage:
    """A page in bytewise order; time grows with the page, not with the bucket.

    An object whose parts are stored apart comes without part sizes and extents: a listing shows
    neither, and ``versions.get_version`` gives them.

    Raises:
        NoSuchBucketError.
    """
    bucket_id = buckets.find(reader, query.bucket).bucket_id
    found: list[objects.ObjectRecord] = []
    prefixes: list[str] = []
    last = ""
    truncated = False
    if query.limit > 0:
        for name, value in entries(
            reader,
            index_keys.OBJECTS,
            bucket_id,
            prefix=query.prefix.encode(),
            delimiter=query.delimiter.encode(),
            after=query.after.encode(),
        ):
            if len(found) + len(prefixes) == query.limit:
                truncated = True
                break
            last = name.decode()
            if value is None:
                prefixes.append(last)
            else:
                stored = index_records.unpack(index_records.Object, value)
                found.append(index_records.object_to_domain(query.bucket, last, stored))
    return objects.ListPage(objects=found, common_prefixes=prefixes, truncated=truncated, last=last)


def entries(
    reader: index_port.IndexReader,
    table: bytes,
    root: int,
    *,
    prefix: bytes,
    delimiter: bytes,
    after: bytes,
    inclusive: bool = False,
) -> Iterator[Entry]:
    """Keys under ``prefix`` and common prefixes that sort after ``after``, in bytewise order.

    Args:
        inclusive: Begin with the key ``after`` itself.
    """
    start: bytes | None = after if inclusive or not after else key_space.after(after)
    hidden = _common_prefix(after, prefix, delimiter)
    if hidden is not None:
        # Every key below it rolls up into an entry that sorts at or before ``after``.
        start = key_space.after_prefix(hidden)
    stop = key_space.after_prefix(prefix)
    while start is not None:
        resume: bytes | None = None
        for key, value in key_space.scan(reader, table, root, start=max(start, prefix), stop=stop):
            common = _common_prefix(key, prefix, delimiter)
            if common is None:
                yield key, value
                continue
            yield common, None
            resume = key_space.after_prefix(common)
            break
        start = resume


def _common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]
