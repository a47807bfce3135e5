"""Records of the index, structures on media, and records of the node API."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.fuzz import target

from couchestor_daemon.formats import (
    batch,
    checkpoint,
    frame,
    identity,
    identity_records,
    index_records,
    l2p_record,
    lifecycle_records,
    lock_records,
    media_records,
    packed_stripe,
    shard,
    usage_records,
    zone_header,
)
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, lifecycle
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record

_GOLDEN: Final = pathlib.Path(__file__).resolve().parents[1] / "golden"
_DEVICE: Final = "00112233445566778899aabbccddeeff"
_SEED: Final = 7
_PLACE: Final = 4096


def _golden(name: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in (_GOLDEN / f"{name}_v1.hex").read_text().split()]


def _index(
    name: str,
    read: Callable[[bytes], Any],
    write: Callable[[Any], bytes],
    *seeds: bytes,
    use: Callable[[Any], object] | None = None,
) -> target.Target:
    def run(data: bytes) -> None:
        try:
            found = read(data)
            if use is not None:
                use(found)
        except errors.IndexCorruptError:
            return
        assert read(write(found)) == found

    return target.Target(name=f"{name} record", run=run, seeds=seeds, tokens=_MSGPACK)


def _record(
    kind: type[Any], *seeds: bytes, use: Callable[[Any], object] | None = None
) -> target.Target:
    return _index(
        kind.__name__.lower(),
        lambda value: index_records.unpack(kind, value),
        index_records.pack,
        *seeds,
        use=use,
    )


def _media(made: Any) -> target.Target:
    kind = type(made)
    return _index(
        kind.__name__.removesuffix("Record").lower(),
        lambda value: media_records.unpack(kind, value),
        media_records.pack,
        media_records.pack(made),
    )


def _use_bucket(stored: index_records.Bucket) -> None:
    lock_records.bucket_to_domain(stored.object_lock)


def _use_object(stored: index_records.Object) -> None:
    record = index_records.object_to_domain("b", "k", stored)
    assert (record.size_bytes, record.etag) == (stored.size_bytes, stored.etag)


def _use_parts(stored: index_records.PartPage) -> None:
    for part in stored.parts:
        assert index_records.part_to_stored(index_records.part_to_domain(part)) == part


def _use_upload(stored: index_records.Upload) -> None:
    assert index_records.upload_to_domain("u", stored).key == stored.key


_MSGPACK: Final = (
    b"\x90",
    b"\x91",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\x80",
    b"\xa1\xff",
    b"\xa0",
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\xc4\x01\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x93\x01\x02\x03",
    b"\x00",
    b"\x01",
)
_MEMBERS: Final = ((_DEVICE, 1), (_DEVICE, 2))
_PART: Final = index_records.Part(1, 5, "e", 9, {"crc32": "AAAAAA=="}, ((4096, 5),))
_CONFIGURATION: Final = lifecycle.Configuration(
    rules=(
        lifecycle.Rule(
            rule_id="a",
            is_enabled=True,
            filter=lifecycle.Filter(
                form=lifecycle.FilterForm.AND, prefix="p", tags={"a": "b"}, larger_than_bytes=1
            ),
            days=1,
        ),
    )
)

INDEX_TARGETS: Final = (
    _record(index_records.Bucket, *_golden("index_bucket"), use=_use_bucket),
    _record(index_records.Object, *_golden("index_object"), use=_use_object),
    _record(
        index_records.PartPage,
        index_records.pack(index_records.PartPage((_PART,))),
        use=_use_parts,
    ),
    _record(index_records.Upload, *_golden("index_upload"), use=_use_upload),
    _record(index_records.Completed, *_golden("index_completed")),
    _record(identity_records.Tenant, *_golden("index_tenant")),
    _record(identity_records.User, *_golden("index_user")),
    _record(identity_records.AccessKey, *_golden("index_access_key")),
    _index(
        "lifecycle",
        lifecycle_records.unpack,
        lifecycle_records.pack,
        *_golden("index_lifecycle"),
        lifecycle_records.pack(_CONFIGURATION),
    ),
    _index(
        "usage",
        usage_records.unpack,
        usage_records.pack,
        usage_records.pack(usage_records.Usage(1, 2, 3, 4, True)),
    ),
    _index(
        "location",
        l2p_record.unpack,
        l2p_record.pack,
        l2p_record.pack(l2p_record.JournalLocation(6, 77, 50, 0xABC)),
        l2p_record.pack(l2p_record.StripeLocation(4, 8192, 4096, 100, 0, 100)),
    ),
    _media(media_records.SegmentRecord(1, 1, "w", 7, _MEMBERS, True)),
    _media(media_records.GroupRecord(1, 1, "w", 4, 2, 1, _MEMBERS)),
    _media(media_records.CheckpointRecord(1, 1, 7, (_MEMBERS,), 5, 6, 7, 8, ((1, 2),))),
    _media(media_records.ZoneRecord(1, 2)),
    _media(media_records.DeviceRecord(_DEVICE, "d", "f", 1, False)),
    _media(media_records.RepairRecord(1, 4096, 2, "rot", 9)),
    _media(
        media_records.ScrubRecord(
            1,
            2,
            (3,),
            media_records.ScrubCounts(),
            media_records.ScrubCounts(),
            1,
            ((1, 2),),
        )
    ),
)


# -- media ---------------------------------------------------------------------------------------


def _framed(
    name: str,
    magic: bytes,
    read: Callable[[memoryview], Any],
    write: Callable[[Any], bytes],
    *seeds: bytes,
    version: int = 1,
    seed: int = 0,
    payloads: tuple[bytes, ...] = (),
) -> target.Target:
    """A structure in a frame. Bytes count as its payload, and as the whole of it.

    The checksum keeps all but what was written out; a parser that is asked all the same neither
    raises nor takes what it cannot write.
    """

    def run(data: bytes) -> None:
        for whole in (frame.pack(magic, version=version, payload=data, seed=seed), data):
            found = read(memoryview(whole))
            if found is not None:
                assert read(memoryview(write(found))) == found

    started = (*map(_payload_of, seeds), *(whole[:1024] for whole in seeds), *payloads)
    return target.Target(name=name, run=run, seeds=started, tokens=_WORDS)


def _payload_of(whole: bytes) -> bytes:
    _, _, _, length, _ = frame.FRAME.unpack_from(whole)
    return whole[frame.FRAME_BYTES : frame.FRAME_BYTES + length]


def _read_stripe(view: memoryview) -> Any:
    packed_stripe.announced_bytes(view)
    return packed_stripe.unpack(view, data_bytes=1 << 20)


def _read_block(view: memoryview) -> Any:
    found = checkpoint.unpack(view, seed=_SEED)
    if found is None:
        return None
    if found.is_end:
        checkpoint.unpack_totals(found.content)
    return found.header, found.is_end, bytes(found.content)


def _write_block(found: Any) -> bytes:
    header, is_end, content = found
    out = bytearray(checkpoint.OVERHEAD_BYTES + len(content) + _PLACE)
    length = checkpoint.pack_into(memoryview(out), header, content, seed=_SEED, is_end=is_end)
    return bytes(out[:length])


def _read_identity(view: memoryview) -> Any:
    try:
        return identity.unpack(view)
    except (errors.UnformattedDeviceError, errors.ForeignDeviceError, errors.DeviceCorruptError):
        return None


def _write_identity(found: device_port.DeviceIdentity) -> bytes:
    return identity.pack(found)


def run_batches(data: bytes) -> None:
    """Mutations, a line of key and value each: written and read; and a header of any bytes."""
    view = memoryview(data)
    found = batch.unpack_header(view, seed=_SEED, offset_bytes=_PLACE)
    assert found is None or not batch.body_verifies(found, view[:1], seed=_SEED)
    mutations: list[batch.Mutation] = []
    for line in data.split(b"\n"):
        key, separator, value = line[:60_000].partition(b"=")
        mutations.append((key, value if separator else None))
    packed = batch.pack_mutations(mutations)
    out = memoryview(bytearray(batch.total_bytes(len(data), len(packed))))
    total = batch.pack_into(
        out,
        segment_id=1,
        sequence=2,
        previous=1,
        payloads=[data],
        mutations=packed,
        seed=_SEED,
        offset_bytes=_PLACE,
    )
    header = batch.unpack_header(out, seed=_SEED, offset_bytes=_PLACE)
    assert header is not None
    assert header.total_bytes == total
    assert batch.body_verifies(header, out, seed=_SEED)
    assert list(batch.unpack_mutations(batch.mutations_of(header, out))) == mutations
    assert batch.unpack_header(out, seed=_SEED, offset_bytes=2 * _PLACE) is None


def run_entries(data: bytes) -> None:
    """The length of pieces, a byte, and entries of a checkpoint: the same however they are cut."""

    def read(stream: bytes, cut: int) -> tuple[list[tuple[bytes, bytes]], int]:
        parser = checkpoint.EntryParser()
        found: list[tuple[bytes, bytes]] = []
        for piece in target.pieces(stream, cut):
            found += parser.feed(memoryview(piece))
        return found, parser.rest_bytes

    cut, stream = (data[0], data[1:]) if data else (0, b"")
    whole = read(stream, 0)
    assert read(stream, max(1, cut)) == whole
    entries, rest_bytes = whole
    written = b"".join(checkpoint.pack_entry(key, value) for key, value in entries)
    assert written == stream[: len(stream) - rest_bytes]


_WORDS: Final = (
    b"\x00",
    b"\x01",
    b"\xff\xff\xff\xff",
    b"\x00\x10\x00\x00",
    b"\x00" * 8,
    b"[",
    b'{"',
    b"1e999",
    b"\n",
    b"=",
)
_SHARD: Final = shard.ShardHeader(
    1, 4096, 2, 3, 100, 20_000, shard.CHECKSUM_BLOCK_BYTES, 0, 4, 2, 1, (5, 6)
)
_IDENTITY: Final = device_port.DeviceIdentity(
    node_id=ids.NodeId(_DEVICE),
    device_id=ids.DeviceId(_DEVICE),
    label="d",
    failure_domain="rack",
    zone_count=8,
    zone_capacity_bytes=1 << 20,
    joined_epoch=1,
    members_count=6,
    retiring=False,
)
_ZONE: Final = zone_header.ZoneHeader(
    zone_header.ZoneRole.GROUP,
    0,
    4,
    2,
    9,
    7,
    tuple(ids.ZoneAddress(ids.DeviceId(_DEVICE), ids.ZoneIndex(index)) for index in range(6)),
)

MEDIA_TARGETS: Final = (
    _framed(
        "zone header",
        zone_header.MAGIC,
        zone_header.unpack,
        zone_header.pack,
        zone_header.pack(_ZONE),
    ),
    _framed("shard header", shard.MAGIC, shard.unpack, shard.pack, shard.pack(_SHARD)),
    _framed(
        "packed stripe",
        packed_stripe.MAGIC,
        _read_stripe,
        packed_stripe.pack,
        packed_stripe.pack((packed_stripe.Entry(1, 4096, 5, 5, False),)),
    ),
    _framed(
        "checkpoint block",
        checkpoint.MAGIC,
        _read_block,
        _write_block,
        _write_block((checkpoint.BlockHeader(1, 2, 3, 4), True, checkpoint.TOTALS.pack(1, 2, 3))),
        seed=_SEED,
    ),
    _framed(
        "superblock",
        identity.MAGIC,
        _read_identity,
        _write_identity,
        identity.pack(_IDENTITY),
        version=identity.VERSION,
        payloads=(
            b"[" * 3000,
            _payload_of(identity.pack(_IDENTITY)).replace(b'"zone_count":8', b'"zone_count":1e999'),
        ),
    ),
    target.Target(
        name="batches",
        run=run_batches,
        seeds=(b"key=value\nother", b"\n=\n"),
        tokens=(b"\n", b"=", batch.MAGIC),
    ),
    target.Target(
        name="checkpoint entries",
        run=run_entries,
        seeds=(b"\x03" + checkpoint.pack_entry(b"k", b"value") * 2, b"\x00"),
        tokens=_WORDS,
    ),
)


# -- the node API --------------------------------------------------------------------------------


def _node(
    name: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> target.Target:
    def run(data: bytes) -> None:
        try:
            found = decode(data)
        except errors.NodeRecordError:
            return
        assert decode(encode(found)) == found

    return target.Target(
        name=name.replace("_", " "),
        run=run,
        seeds=((_GOLDEN / "node_api" / f"{name}_v1.json").read_bytes().rstrip(b"\n"),),
        tokens=_JSON,
    )


_JSON: Final = (
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"true",
    b"1.0",
    b"1e9",
    b"-1",
    b"NaN",
    b"9007199254740993",
    b"99999999999999999999",
    b'"version":1,',
    b"0" * 40,
    b"\xff",
)
_RECORDS: Final[Mapping[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]]] = {
    "assignment": (assignment.decode, assignment.encode),
    "complaint": (contract.decode_complaint, contract.encode_complaint),
    "encoding_request": (encoding_request.decode, encoding_request.encode),
    "encoding_state": (encoding_request.decode_state, encoding_request.encode_state),
    "node_record": (node_record.decode, node_record.encode),
    "shard_page": (node_record.decode_page, node_record.encode_page),
}

TARGETS: Final = (
    *INDEX_TARGETS,
    *MEDIA_TARGETS,
    *(_node(name, decode, encode) for name, (decode, encode) in _RECORDS.items()),
)
