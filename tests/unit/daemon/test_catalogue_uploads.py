"""Uploads, conditions, buckets and the L2P of the catalogue."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator

import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import index_keys, l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    buckets,
    l2p,
    listing,
    liveness,
    uploads,
    versions,
)
from couchestor_domain import errors, ids, objects, version_ids

NONE = objects.NO_CONDITIONS


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        buckets.create_bucket(writer, name="b", owner="me", region="r", now_ns=1)
        yield writer


def place(address: int, length: int) -> list[tuple[ids.ExtentAddress, l2p_record.Location]]:
    return [(ids.ExtentAddress(address), l2p_record.StripeLocation(1, 0, 4096, 9, 0, length))]


def begin(
    txn: index_port.IndexWriter,
    upload_id: str,
    *,
    key: str = "k",
    at_ns: int = 5,
    checksum_algorithm: str = "",
    checksum_type: str = "",
) -> objects.UploadRecord:
    upload = objects.UploadRecord(
        upload_id=upload_id,
        bucket="b",
        key=key,
        initiated_ns=at_ns,
        checksum_algorithm=checksum_algorithm,
        checksum_type=checksum_type,
    )
    uploads.create_upload(txn, upload)
    return upload


def add(
    txn: index_port.IndexWriter, upload: objects.UploadRecord, number: int, body: bytes, at: int
) -> objects.CompletedPart:
    part = objects.PartRecord(
        number=number,
        size_bytes=len(body),
        etag=hashlib.md5(body).hexdigest(),
        modified_ns=1,
        checksums={
            "crc32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
            "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        },
        extents=(ids.Extent(ids.ExtentAddress(at), len(body)),),
    )
    uploads.put_part(txn, upload, part, place(at, len(body)))
    return objects.CompletedPart(number=number, etag=part.etag)


def put(txn: index_port.IndexWriter, conditions: objects.WriteConditions = NONE) -> None:
    record = objects.ObjectRecord(bucket="b", key="k", size_bytes=0, etag="e1", modified_ns=1)
    versions.put_version(txn, record, conditions, (), draw=draw)


def draw() -> bytes:
    return bytes(version_ids.RANDOM_BYTES)


def uploads_left(txn: index_port.IndexWriter) -> list[bytes]:
    tables = (b"u", b"w", b"i", b"v", b"c", b"q")
    return [key for t in tables for key, _ in txn.scan(*media_records.table_range(t))]


@pytest.mark.parametrize("parts_count", [2, 17, 300])
def test_a_completed_upload_is_one_object(txn: index_port.IndexWriter, parts_count: int) -> None:
    upload = begin(txn, "u1", checksum_algorithm="crc32", checksum_type="FULL_OBJECT")
    bodies = [b"%05d" % number for number in range(parts_count)]
    named = [add(txn, upload, n + 1, body, 1000 + n * 10) for n, body in enumerate(bodies)]
    add(txn, upload, 9999, b"dropped", 9_000_000)
    done = uploads.complete_upload(txn, upload, named, NONE, now_ns=7, draw=draw, min_part_bytes=1)
    md5s = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert done.etag == f"{hashlib.md5(md5s).hexdigest()}-{parts_count}"
    whole = zlib.crc32(b"".join(bodies)).to_bytes(4, "big")
    assert done.checksums == {"crc32": base64.b64encode(whole).decode()}
    assert done.part_sizes_bytes == (5,) * parts_count
    assert versions.get_version(txn, "b", "k") == done
    assert liveness.group_bytes(txn, 1) == done.size_bytes == 5 * parts_count
    listed = listing.list_objects(txn, objects.ListQuery(bucket="b")).objects
    assert [(record.key, record.size_bytes) for record in listed] == [("k", done.size_bytes)]
    # A client that did not get the answer asks again, whatever its conditions were.
    again = uploads.get_upload(txn, "b", "k", "u1")
    once = objects.WriteConditions(if_none_match="*")
    assert (
        uploads.complete_upload(txn, again, named, once, now_ns=8, draw=draw, min_part_bytes=1)
        == done
    )
    with pytest.raises(errors.NoSuchUploadError):
        uploads.complete_upload(txn, again, named[:1], NONE, now_ns=8, draw=draw)
    versions.delete_version(txn, "b", "k", NONE, now_ns=9, draw=draw)
    assert uploads_left(txn) == []
    assert liveness.group_bytes(txn, 1) == 0


def test_a_composite_checksum_is_over_the_raw_part_checksums(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1", checksum_algorithm="sha256", checksum_type="COMPOSITE")
    named = [add(txn, upload, 1, b"one", 10), add(txn, upload, 2, b"two", 20)]
    done = uploads.complete_upload(txn, upload, named, NONE, now_ns=7, draw=draw, min_part_bytes=1)
    raw = hashlib.sha256(b"one").digest() + hashlib.sha256(b"two").digest()
    value = base64.b64encode(hashlib.sha256(raw).digest()).decode()
    assert (done.checksums, done.checksum_type) == ({"sha256": f"{value}-2"}, "COMPOSITE")


def test_a_refused_completion_changes_nothing(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1")
    one, two = add(txn, upload, 1, b"one", 10), add(txn, upload, 2, b"two", 20)
    before = list(txn.scan(b"\x00", b"\xff"))
    wrong = objects.CompletedPart(number=2, etag="0" * 32)
    for named, kind in (
        ([two, one], errors.InvalidPartOrderError),
        ([one, wrong], errors.InvalidPartError),
        ([], errors.InvalidPartError),
        ([one, two], errors.PartTooSmallError),
    ):
        with pytest.raises(kind):
            uploads.complete_upload(txn, upload, named, NONE, now_ns=7, draw=draw)
    for expected in (
        objects.ExpectedObject(size_bytes=4),
        objects.ExpectedObject(checksums={"crc32": "AAAAAA=="}),
    ):
        with pytest.raises(errors.DigestMismatchError):
            uploads.complete_upload(
                txn, upload, [one], NONE, now_ns=7, draw=draw, expected=expected
            )
    missing = objects.WriteConditions(if_match="*")
    with pytest.raises(errors.NoSuchKeyError):
        uploads.complete_upload(txn, upload, [one], missing, now_ns=7, draw=draw)
    assert list(txn.scan(b"\x00", b"\xff")) == before


def test_the_last_mention_of_a_part_counts(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1")
    first = add(txn, upload, 1, b"lost", 10)
    second = add(txn, upload, 1, b"kept", 20)
    done = uploads.complete_upload(txn, upload, [first, second], NONE, now_ns=7, draw=draw)
    assert (done.part_count, done.size_bytes) == (1, 4)
    assert done.extents == (ids.Extent(ids.ExtentAddress(20), 4),)


def test_what_the_client_expects_is_compared_also_on_a_retry(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1", checksum_algorithm="crc32", checksum_type="FULL_OBJECT")
    one = add(txn, upload, 1, b"one", 10)
    value = base64.b64encode(zlib.crc32(b"one").to_bytes(4, "big")).decode()
    right = objects.ExpectedObject(checksums={"crc32": value}, size_bytes=3)
    for _ in range(2):
        done = uploads.complete_upload(
            txn, upload, [one], NONE, now_ns=7, draw=draw, expected=right
        )
        assert done.part_checksums[0]["crc32"] == value
        wrong = objects.ExpectedObject(size_bytes=4)
        with pytest.raises(errors.DigestMismatchError):
            uploads.complete_upload(txn, upload, [one], NONE, now_ns=7, draw=draw, expected=wrong)


def test_replacing_and_aborting_give_the_bytes_back(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1", key="é" * 512)
    add(txn, upload, 1, b"first", 10)
    add(txn, upload, 1, b"second", 20)
    assert liveness.group_bytes(txn, 1) == 6
    with pytest.raises(errors.BucketNotEmptyError):
        buckets.delete_bucket(txn, "b")
    uploads.abort_upload(txn, "b", "é" * 512, "u1")
    assert liveness.group_bytes(txn, 1) == 0
    assert uploads_left(txn) == []
    with pytest.raises(errors.NoSuchUploadError):
        add(txn, upload, 1, b"late", 30)
    with pytest.raises(errors.NoSuchUploadError):
        uploads.get_upload(txn, "b", "k", "u" * 600)
    buckets.delete_bucket(txn, "b")


def test_parts_are_paged(txn: index_port.IndexWriter) -> None:
    upload = begin(txn, "u1")
    for number in (1, 3, 10_000):
        add(txn, upload, number, b"x", number * 10)
    page = uploads.list_parts(txn, upload, after_part=0, limit=2)
    assert [part.number for part in page.parts] == [1, 3]
    assert (page.truncated, page.next_part_marker) == (True, 3)
    rest = uploads.list_parts(txn, upload, after_part=3, limit=2)
    assert ([part.number for part in rest.parts], rest.truncated) == ([10_000], False)
    assert uploads.list_parts(txn, upload, after_part=10**9, limit=2).parts == []


@pytest.mark.parametrize("abort_listed", [False, True])
def test_uploads_are_paged_by_key_then_age(txn: index_port.IndexWriter, abort_listed: bool) -> None:
    made = [("a", 9, "u3"), ("a", 8, "zz"), ("d/1", 1, "u5"), ("d/2", 1, "u6"), ("e", 1, "u7")]
    for key, at_ns, upload_id in made:
        begin(txn, upload_id, key=key, at_ns=at_ns)
    seen: list[str] = []
    query = objects.UploadQuery(bucket="b", delimiter="/", limit=1)
    for _ in range(9):
        page = uploads.list_uploads(txn, query)
        seen += [upload.upload_id for upload in page.uploads] + list(page.common_prefixes)
        if abort_listed:
            for upload in page.uploads:
                uploads.abort_upload(txn, "b", upload.key, upload.upload_id)
        if not page.truncated:
            break
        query = objects.UploadQuery(
            bucket="b",
            delimiter="/",
            limit=1,
            key_marker=page.next_key_marker,
            upload_id_marker=page.next_upload_id_marker,
        )
    assert seen == ["zz", "u3", "d/", "u7"]


def test_conditions_are_checked_with_the_write(txn: index_port.IndexWriter) -> None:
    with pytest.raises(errors.NoSuchKeyError):
        put(txn, objects.WriteConditions(if_match="e1"))
    put(txn, objects.WriteConditions(if_none_match="*"))
    put(txn, objects.WriteConditions(if_match="e1", if_none_match="other"))
    for refused in (
        objects.WriteConditions(if_match="e2"),
        objects.WriteConditions(if_none_match="*"),
        objects.WriteConditions(if_none_match="e1"),
    ):
        with pytest.raises(errors.PreconditionFailedError):
            put(txn, refused)
    assert versions.delete_version(txn, "b", "other", NONE, now_ns=9, draw=draw) == (
        objects.Deletion()
    )


def test_a_bucket_created_again_is_empty(txn: index_port.IndexWriter) -> None:
    with pytest.raises(errors.BucketAlreadyExistsError) as caught:
        buckets.create_bucket(txn, name="b", owner="you", region="r", now_ns=1)
    assert caught.value.context["owner"] == "me"
    first = buckets.find(txn, "b").bucket_id
    buckets.delete_bucket(txn, "b")
    with pytest.raises(errors.NoSuchBucketError):
        put(txn)
    buckets.create_bucket(txn, name="b", owner="you", region="r", now_ns=2)
    assert buckets.find(txn, "b").bucket_id != first
    assert [bucket.owner for bucket in buckets.list_buckets(txn)] == ["you"]


def test_extents_resolve_over_their_locations(txn: index_port.IndexWriter) -> None:
    stripe = l2p_record.StripeLocation(4, 8192, 4096, 100, 0, 100)
    journal = l2p_record.JournalLocation(6, 77, 50, 0xABC)
    extent = ids.Extent(ids.ExtentAddress(1000), 150)
    tail = ids.ExtentAddress(1100)
    l2p.insert_all(txn, [(extent.address, stripe), (tail, journal)])
    assert l2p.resolve(txn, extent, start_bytes=90, length_bytes=20) == [
        (1000, stripe, 90, 10),
        (1100, journal, 0, 10),
    ]
    assert l2p.resolve(txn, extent, start_bytes=120, length_bytes=30) == [(1100, journal, 20, 30)]
    moved = stripe._replace(group_id=5, length_bytes=50)
    assert l2p.replace(txn, tail, expected=journal, location=moved)
    assert not l2p.replace(txn, tail, expected=journal, location=moved)
    assert (liveness.segment_bytes(txn, 6), liveness.group_bytes(txn, 5)) == (0, 50)
    txn.delete(l2p_record.key(tail))
    with pytest.raises(errors.IndexCorruptError):
        l2p.resolve(txn, extent, start_bytes=90, length_bytes=20)
    l2p.punch(txn, extent)
    assert txn.get(index_keys.group_live(4)) is None
    with pytest.raises(errors.IndexCorruptError):
        liveness.subtract(txn, [stripe])
