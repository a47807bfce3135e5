"""The catalogue against a dict, and long keys against sorted()."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import index_keys, l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, key_space, listing, liveness, versions
from couchestor_domain import ids, objects, version_ids

FEW = hypothesis.settings(max_examples=80, deadline=None)
BUCKET = "photos"
STEM = "x" * 479
# Around the two places where a key is cut, with characters of one to four bytes.
HEADS = st.sampled_from(["", "a", "a/", "é", STEM, STEM + "y", STEM + "é", STEM * 2 + "yy"])
TAILS = st.text(st.sampled_from("/ab\x00\x01é€😀\uffff"), max_size=4)
KEYS = st.builds(lambda head, tail: head + tail, HEADS, TAILS).filter(bool)
RAW_KEYS = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from([b"", b"k" * 479, b"k" * 480, b"k" * 481, b"k" * 960, b"k" * 961]),
    st.binary(max_size=3) | st.text(st.sampled_from("\x00\x01\x02k"), max_size=3).map(str.encode),
)


def object_record(key: str, serial: int) -> objects.ObjectRecord:
    address = ids.ExtentAddress(serial * 100)
    return objects.ObjectRecord(
        bucket=BUCKET,
        key=key,
        size_bytes=10,
        etag=f"{serial:032x}",
        modified_ns=serial,
        extents=(ids.Extent(address, 10),),
    )


def draw() -> bytes:
    return bytes(version_ids.RANDOM_BYTES)


def remove(txn: index_port.IndexWriter, key: str) -> None:
    deletion = versions.delete_version(txn, BUCKET, key, objects.NO_CONDITIONS, now_ns=1, draw=draw)
    assert deletion == objects.Deletion()


def expected_page(
    model: dict[str, objects.ObjectRecord], query: objects.ListQuery
) -> objects.ListPage:
    """Section "after" of ListQuery, done slowly on whole strings."""
    names: dict[str, objects.ObjectRecord | None] = {}
    for key in sorted(model, key=str.encode):
        if not key.startswith(query.prefix):
            continue
        at = key.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
        name = key if at < 0 else key[: at + len(query.delimiter)]
        if name.encode() > query.after.encode():
            names[name] = model[key] if at < 0 else None
    page = list(names)[: query.limit]
    return objects.ListPage(
        objects=[record for name in page if (record := names[name]) is not None],
        common_prefixes=[name for name in page if names[name] is None],
        truncated=query.limit > 0 and len(names) > len(page),
        last=page[-1] if page else "",
    )


@FEW
@hypothesis.given(
    changes=st.lists(st.tuples(KEYS, st.booleans()), max_size=25),
    queries=st.lists(
        st.builds(
            objects.ListQuery,
            bucket=st.just(BUCKET),
            prefix=st.just("") | HEADS | KEYS,
            delimiter=st.sampled_from(["", "/", "a", "é", "ab"]),
            after=st.just("") | KEYS,
            limit=st.integers(0, 5),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_the_catalogue_is_a_dict(
    changes: Sequence[tuple[str, bool]], queries: Sequence[objects.ListQuery]
) -> None:
    store = memory_index.MemoryIndex()
    model: dict[str, objects.ObjectRecord] = {}
    with store.write() as txn:
        buckets.create_bucket(txn, name=BUCKET, owner="o", region="r", now_ns=1)
        bystanders = list(txn.scan(b"\x00", b"\xff"))
        for serial, (key, is_gone) in enumerate(changes, 1):
            if is_gone:
                remove(txn, key)
                model.pop(key, None)
                continue
            record = object_record(key, serial)
            location = l2p_record.StripeLocation(serial % 3 + 1, 0, 4096, 10, 0, 10)
            versions.put_version(
                txn,
                record,
                objects.NO_CONDITIONS,
                [(record.extents[0].address, location)],
                draw=draw,
            )
            model[key] = record
        for key, record in model.items():
            assert versions.get_version(txn, BUCKET, key) == record
        assert sum(liveness.group_bytes(txn, group) for group in (1, 2, 3)) == 10 * len(model)
        for query in queries:
            assert listing.list_objects(txn, query) == expected_page(model, query)
        for key in model:
            remove(txn, key)
        # Nothing is left behind but the counter of namespaces.
        left = [pair for pair in txn.scan(b"\x00", b"\xff") if pair[0] != index_keys.NAMESPACE_KEY]
        assert left == [pair for pair in bystanders if pair[0] != index_keys.NAMESPACE_KEY]


@FEW
@hypothesis.given(
    keys=st.sets(RAW_KEYS.filter(bool), max_size=20),
    start=RAW_KEYS,
    stop=st.none() | RAW_KEYS,
)
def test_long_keys_keep_their_order(keys: set[bytes], start: bytes, stop: bytes | None) -> None:
    with memory_index.MemoryIndex().write() as txn:
        mine, other = key_space.new_namespace(txn), key_space.new_namespace(txn)
        for root, value in ((mine, b"mine"), (other, b"other")):
            for key in keys:
                key_space.put(txn, index_keys.OBJECTS, root, key, value + key)
        wanted = [
            (key, b"mine" + key)
            for key in sorted(keys)
            if key >= start and (stop is None or key < stop)
        ]
        found = list(key_space.scan(txn, index_keys.OBJECTS, mine, start=start, stop=stop))
        assert found == wanted
        assert all(len(key) <= 511 for key, _ in txn.scan(b"\x00", b"\xff"))
