"""Records of the node API: their bytes, and that nothing else is taken for one."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import errors, geometry, ids
from couchestor_domain.node_api import (
    assignment,
    contract,
    encoding_request,
    fields,
    node_record,
)

GOLDEN: Final = pathlib.Path(__file__).resolve().parents[2] / "golden" / "node_api"
DEVICE: Final = ids.DeviceId("0123456789abcdef" * 2)
OTHER: Final = ids.DeviceId("fedcba9876543210" * 2)

NODE: Final = node_record.NodeRecord(
    node="storage-1.example",
    node_id=ids.NodeId("00112233445566778899aabbccddeeff"),
    revision=4711,
    health=node_record.NodeHealth.DEGRADED,
    devices=(
        node_record.DeviceRecord(
            device_id=DEVICE,
            health=node_record.DeviceHealth.HEALTHY,
            capacity_bytes=4_000_000_000_000,
            free_bytes=3_221_225_472,
            zone_bytes=268_435_456,
            offered_zones=(7, 8, 4095),
        ),
        node_record.DeviceRecord(
            device_id=OTHER,
            health=node_record.DeviceHealth.FAILED,
            capacity_bytes=4_000_000_000_000,
            free_bytes=0,
            zone_bytes=268_435_456,
            offered_zones=(),
        ),
    ),
    writers=(
        node_record.WriterRecord(
            name="storage-1-w0",
            stripe_id_next=14,
            groups=(
                node_record.WriterGroup(
                    stripe="storage-1-w0-12", generation=1, usable=True, open=True
                ),
                node_record.WriterGroup(
                    stripe="storage-1-w0-13", generation=2, usable=False, open=False
                ),
            ),
        ),
        node_record.WriterRecord(name="storage-1-w1", stripe_id_next=0, groups=()),
    ),
)
PAGE: Final = node_record.ShardPage(
    node="storage-1.example",
    revision=4711,
    more=False,
    shards=(
        node_record.ShardRecord(
            stripe="storage-1-w0-11",
            generation=2,
            shard_index=5,
            device_id=DEVICE,
            offset_bytes=268_435_456,
            state=node_record.ShardState.SEALED,
            written_bytes=268_431_360,
            revision=4700,
        ),
        node_record.ShardRecord(
            stripe="storage-1-w0-12",
            generation=1,
            shard_index=0,
            device_id=DEVICE,
            offset_bytes=536_870_912,
            state=node_record.ShardState.ASSIGNED,
            written_bytes=0,
            revision=4711,
        ),
    ),
)
ASSIGNMENT: Final = assignment.Assignment(
    stripe="storage-1-w0-12",
    generation=1,
    writer_node="storage-1.example",
    writer="storage-1-w0",
    stripe_id=12,
    policy="cold",
    coding=geometry.StripeGeometry(1, 1),
    start_lba=786_432,
    end_lba=851_968,
    usable=True,
    shards=(
        assignment.ShardPlace(
            node="storage-1.example",
            device_id=DEVICE,
            offset_bytes=536_870_912,
            size_bytes=268_435_456,
        ),
        assignment.ShardPlace(
            node="storage-2.example",
            device_id=OTHER,
            offset_bytes=0,
            size_bytes=268_435_456,
        ),
    ),
)
REQUEST: Final = encoding_request.EncodingRequest(
    volume="9c1e6b52-7b0a-4cf3-8a54-0d3f7a2f3b11",
    generation=3,
    size_bytes=107_374_182_400,
    policy="cold",
    coding=geometry.StripeGeometry(4, 2),
    stripe_bytes=1_048_576,
)
STATE: Final = encoding_request.EncodingState(
    volume="9c1e6b52-7b0a-4cf3-8a54-0d3f7a2f3b11",
    generation=3,
    phase=encoding_request.EncodingPhase.FAILED,
    encoded_bytes=4096,
    reason="device 0123 failed",
)
COMPLAINT: Final = contract.Complaint(
    refusal=contract.Refusal.STALE_GENERATION,
    message="storage-1-w0-12 is at generation 3, and 2 was sent",
)

RECORDS: Final[dict[str, tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    "node_record": (NODE, node_record.encode, node_record.decode),
    "shard_page": (PAGE, node_record.encode_page, node_record.decode_page),
    "assignment": (ASSIGNMENT, assignment.encode, assignment.decode),
    "encoding_request": (REQUEST, encoding_request.encode, encoding_request.decode),
    "encoding_state": (STATE, encoding_request.encode_state, encoding_request.decode_state),
    "complaint": (COMPLAINT, contract.encode_complaint, contract.decode_complaint),
}
NAMES: Final = sorted(RECORDS)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_what_they_have_always_been(name: str) -> None:
    record, encode, decode = RECORDS[name]
    golden = (GOLDEN / f"{name}_v1.json").read_bytes().rstrip(b"\n")
    assert encode(record) == golden
    assert decode(golden) == record


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a document."""
    found = [path] if path else []
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, part in inner:
        found += _places(part, (*path, key))
    return found


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_needed_and_none_more_is_taken(name: str) -> None:
    record, encode, decode = RECORDS[name]
    document = json.loads(encode(record))
    for path in _places(document):
        parent = _at(document, path[:-1])
        if not isinstance(parent, dict):
            continue
        without = copy.deepcopy(document)
        del _at(without, path[:-1])[path[-1]]
        with pytest.raises(errors.NodeRecordError, match="is missing") as told:
            decode(json.dumps(without).encode())
        assert str(told.value.context["path"]).endswith(str(path[-1]))
        more = copy.deepcopy(document)
        _at(more, path[:-1])["unheard-of"] = 1
        with pytest.raises(errors.NodeRecordError, match="unheard-of is not known"):
            decode(json.dumps(more).encode())


def test_what_others_call_a_field_is_not_repeated_at_any_length() -> None:
    told = _changed("complaint", lambda it: it.update({"\n" * 10_000: 1}))
    assert told == "Complaint has a field that is not known"


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Ready", "Healthy", "Open", "a", "0" * 32, "storage-1-w0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_is_changed_anywhere_is_a_record_all_the_same_or_refused(
    name: str, data: st.DataObject
) -> None:
    record, encode, decode = RECORDS[name]
    document = json.loads(encode(record))
    path = data.draw(st.sampled_from(_places(document)))
    _at(document, path[:-1])[path[-1]] = data.draw(JSON_VALUES)
    body = json.dumps(document).encode()
    refused: errors.NodeRecordError | None = None
    try:
        read = decode(body)
    except errors.NodeRecordError as exc:
        refused = exc
    else:
        assert decode(encode(read)) == read
    assert refused is None or (refused.message.isprintable() and len(refused.message) < 300)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_other_bytes_are_refused(name: str, data: st.DataObject) -> None:
    record, encode, decode = RECORDS[name]
    body = bytearray(encode(record))
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    else:
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(body))
    except errors.NodeRecordError:
        return
    assert decode(encode(read)) == read


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is no JSON"),
        (b"[]", "is not an object"),
        (b"\xff{}", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"version":1,"version":1}', "has a field twice"),
        (b'{"version":1.0}', "has a number that is not whole"),
        (b'{"version":1e400}', "has a number that is not whole"),
        (b'{"version":NaN}', "has a number that is not whole"),
        (b'{"version":' + b"9" * 5000 + b"}", "has a number that is too large"),
        (b'{"version":true}', "version must be a whole number"),
        (b'{"version":2}', "version must be 1: let both sides be of one release"),
        (b'{"version":1,"kind":"Other"}', "kind must be NodeRecord"),
    ],
)
def test_what_is_no_record_is_said_in_words_of_our_own(body: bytes, why: str) -> None:
    with pytest.raises(errors.NodeRecordError) as told:
        node_record.decode(body)
    assert why in told.value.message


def test_a_record_that_is_too_long_is_not_even_read() -> None:
    body = b" " * (fields.BYTES_MAX + 1)
    with pytest.raises(errors.NodeRecordError, match="is longer than"):
        node_record.decode(body)
    with pytest.raises(errors.NodeRecordError, match="is longer than"):
        assignment.decode(b" " * (assignment.BYTES_MAX + 1))


def _changed(name: str, change: Callable[[Any], object]) -> str:
    record, encode, decode = RECORDS[name]
    document = json.loads(encode(record))
    change(document)
    with pytest.raises(errors.NodeRecordError) as told:
        decode(json.dumps(document).encode())
    return told.value.message


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        (
            "node_record",
            lambda it: it["devices"][0].update(free_bytes=4_000_000_000_001),
            "devices[0].free_bytes is above capacity_bytes",
        ),
        (
            "node_record",
            lambda it: it["devices"][0].update(offered_zones=[7, 7]),
            "devices[0].offered_zones must ascend",
        ),
        (
            "node_record",
            lambda it: it["devices"][0].update(offered_zones=[14_901]),
            "has a zone beyond capacity_bytes",
        ),
        (
            "node_record",
            lambda it: it["devices"][0].update(free_bytes=268_435_456),
            "offered_zones are more than free_bytes holds",
        ),
        (
            "node_record",
            lambda it: it["devices"][0].update(zone_bytes=4097),
            "zone_bytes is not a multiple of 4096",
        ),
        (
            "node_record",
            lambda it: it["devices"].append(it["devices"][1]),
            "devices names a device twice",
        ),
        (
            "node_record",
            lambda it: it["writers"].append(it["writers"][1]),
            "writers names a writer twice",
        ),
        (
            "node_record",
            lambda it: it["writers"][0]["groups"][1].update(open=True),
            "groups[1].open must be false of a group that is not usable",
        ),
        (
            "shard_page",
            lambda it: it["shards"].reverse(),
            "shards must be in the order in which they changed",
        ),
        (
            "shard_page",
            lambda it: it.update(more=True, shards=[]),
            "revision must be that of the last shard where there are more",
        ),
        (
            "shard_page",
            lambda it: it.update(revision=4710),
            "revision must not be below that of a shard",
        ),
        (
            "shard_page",
            lambda it: it["shards"][1].update(written_bytes=4096),
            "shards[1].written_bytes must be 0 of a shard that is only assigned",
        ),
        ("assignment", lambda it: it.update(data_shards=32), "parity_shards are impossible"),
        ("assignment", lambda it: it.update(data_shards=2), "shards must be a list of 3 to 3"),
        ("assignment", lambda it: it.update(end_lba=786_432), "end_lba must be above start_lba"),
        (
            "assignment",
            lambda it: it["shards"][1].update(device_id=DEVICE),
            "shards names a device twice",
        ),
        (
            "encoding_request",
            lambda it: it.update(stripe_bytes=5000),
            "stripe_bytes is not a multiple of 4096",
        ),
        ("encoding_state", lambda it: it.update(reason="a\nb"), "reason must be one line"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    name: str, change: Callable[[Any], object], why: str
) -> None:
    assert why in _changed(name, change)


def test_lists_are_bounded() -> None:
    zones = list(range(node_record.OFFERED_ZONES_COUNT_MAX + 1))
    told = _changed("node_record", lambda it: it["devices"][0].update(offered_zones=zones))
    assert told == "NodeRecord.devices[0].offered_zones must be a list of 0 to 1024"


def test_every_refusal_has_a_status_of_an_error() -> None:
    assert set(contract.STATUS_OF) == set(contract.Refusal)
    assert all(400 <= status < 600 for status in contract.STATUS_OF.values())


def test_names_stay_within_their_part_of_a_path() -> None:
    assert contract.group_path("a/../b") == "/couchestor/node/v1/groups/a%2F..%2Fb"
    assert contract.release_path("a-1", generation=2).endswith("/groups/a-1?generation=2")
    assert contract.encoding_path("v?x=1").endswith("/encodings/v%3Fx%3D1")
