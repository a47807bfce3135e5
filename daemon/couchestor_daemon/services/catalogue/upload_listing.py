"""Pages of the uploads under way in a bucket."""

from __future__ import annotations

from collections.abc import Iterator

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, listing
from couchestor_domain import errors, objects


def list_uploads(reader: index_port.IndexReader, query: objects.UploadQuery) -> objects.UploadPage:
    """A page by key, then time of initiation, after the markers.

    A key marker alone skips that key; with an upload marker its later uploads still come. When
    the marker's upload has ended meanwhile (clients abort what they list) the key starts over.

    Raises:
        NoSuchBucketError.
    """
    bucket_id = buckets.find(reader, query.bucket).bucket_id
    uploads: list[objects.UploadRecord] = []
    prefixes: list[str] = []
    last = ("", "")
    truncated = False
    for name, upload in _entries(reader, bucket_id, query) if query.limit > 0 else ():
        if len(uploads) + len(prefixes) == query.limit:
            truncated = True
            break
        if upload is None:
            prefixes.append(name)
            last = (name, "")
        else:
            uploads.append(upload)
            last = (name, upload.upload_id)
    return objects.UploadPage(
        uploads=uploads,
        common_prefixes=prefixes,
        truncated=truncated,
        next_key_marker=last[0],
        next_upload_id_marker=last[1],
    )


def _entries(
    reader: index_port.IndexReader, bucket_id: int, query: objects.UploadQuery
) -> Iterator[tuple[str, objects.UploadRecord | None]]:
    for key, value in listing.entries(
        reader,
        index_keys.UPLOAD_KEYS,
        bucket_id,
        prefix=query.prefix.encode(),
        delimiter=query.delimiter.encode(),
        after=query.key_marker.encode(),
        inclusive=bool(query.upload_id_marker),
    ):
        name = key.decode()
        if value is None:
            yield name, None
            continue
        (list_id,) = index_keys.U64.unpack(value)
        start = index_keys.namespace(index_keys.UPLOAD_LISTS, list_id)
        if query.upload_id_marker and name == query.key_marker:
            start = _after_marker(reader, list_id, query.upload_id_marker) or start
        stop = index_keys.namespace_stop(index_keys.UPLOAD_LISTS, list_id)
        for entry, _ in reader.scan(start, stop):
            upload_id = index_keys.upload_of_entry(entry)
            stored = reader.get(index_keys.upload(upload_id))
            if stored is None:
                raise errors.IndexCorruptError(
                    f"the index lists upload {upload_id} but does not hold it; "
                    "run `couchestor recover`"
                )
            found = index_records.unpack(index_records.Upload, stored)
            yield name, index_records.upload_to_domain(upload_id, found)


def _after_marker(reader: index_port.IndexReader, list_id: int, upload_id: str) -> bytes | None:
    value = reader.get(index_keys.upload(upload_id))
    if value is None:
        return None
    stored = index_records.unpack(index_records.Upload, value)
    if stored.list_id != list_id:
        return None
    return index_keys.upload_entry(list_id, stored.initiated_ns, upload_id) + b"\x00"
