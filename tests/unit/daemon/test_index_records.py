"""Index records that earlier releases wrote go on being read."""

from __future__ import annotations

import msgspec
import pytest

from couchestor_daemon.formats import index_records, media_records
from couchestor_domain import errors, objects


def test_records_without_versioning_are_read() -> None:
    bucket = index_records.VERSION + msgspec.msgpack.encode([7, "owner", 5, "region"])
    assert index_records.unpack(index_records.Bucket, bucket) == index_records.Bucket(
        bucket_id=7, owner="owner", created_ns=5, region="region", versioning=""
    )
    fields = ["null", 3, "etag", 9, {}, {}, {}, "", "owner", 0, [], [[1, 3]], 0, ""]
    stored = index_records.unpack(
        index_records.Object, index_records.VERSION + msgspec.msgpack.encode(fields)
    )
    assert (stored.order, stored.is_delete_marker) == (0, False)
    assert stored.extents == ((1, 3),)
    receipt = index_records.VERSION + msgspec.msgpack.encode(["b", "k", 1, b"digest"])
    done = index_records.unpack(index_records.Completed, receipt)
    assert done.version_id == objects.NULL_VERSION


@pytest.mark.parametrize("broken", [b"\xff", b"\xc3("])
def test_a_name_that_is_not_utf_8_is_corruption(broken: bytes) -> None:
    name = broken.ljust(2, b"b")
    device = media_records.pack(media_records.DeviceRecord("0" * 32, "ab", "f", 1, False))
    with pytest.raises(errors.IndexCorruptError):
        media_records.unpack(media_records.DeviceRecord, device.replace(b"ab", name))
    bucket = index_records.pack(index_records.Bucket(7, "ab", 5, "r", ""))
    with pytest.raises(errors.IndexCorruptError):
        index_records.unpack(index_records.Bucket, bucket.replace(b"ab", name))
