"""The superblock."""

from __future__ import annotations

import dataclasses

import pytest

from couchestor_daemon.formats import frame
from couchestor_daemon.formats import identity as identity_format
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

IDENTITY = device_port.DeviceIdentity(
    node_id=ids.NodeId("0" * 31 + "1"),
    device_id=ids.DeviceId("0" * 31 + "2"),
    label="d3",
    failure_domain="shelf-\u00e9",
    zone_count=64,
    zone_capacity_bytes=64 << 20,
    joined_epoch=7,
    members_count=6,
    retiring=True,
)
GOLDEN_PAYLOAD = (
    b'{"device_id":"00000000000000000000000000000002","failure_domain":"shelf-\\u00e9",'
    b'"joined_epoch":7,"label":"d3","members_count":6,'
    b'"node_id":"00000000000000000000000000000001","retiring":true,'
    b'"zone_capacity_bytes":67108864,"zone_count":64}'
)
GOLDEN_HEADER = bytes.fromhex("4353544f5244455602000000ec0000000323eaa9ff7443d4")
VERSION_1_PAYLOAD = (
    b'{"device_id":"00000000000000000000000000000002","failure_domain":"shelf-\\u00e9",'
    b'"joined_epoch":7,"label":"d3","node_id":"00000000000000000000000000000001",'
    b'"zone_capacity_bytes":67108864,"zone_count":64}'
)
VERSION_1_HEADER = bytes.fromhex("4353544f5244455601000000ca000000ad18ba5530d01d9e")


def test_golden_bytes() -> None:
    packed = identity_format.pack(IDENTITY)
    assert len(packed) == 4096
    assert packed[:24] == GOLDEN_HEADER
    assert packed[24:] == GOLDEN_PAYLOAD.ljust(4096 - 24, b"\0")
    assert identity_format.unpack(packed) == IDENTITY


def test_version_1_is_read_as_in_service() -> None:
    superblock = (VERSION_1_HEADER + VERSION_1_PAYLOAD).ljust(4096, b"\0")
    expected = dataclasses.replace(IDENTITY, members_count=0, retiring=False)
    assert identity_format.unpack(superblock) == expected


@pytest.mark.parametrize("position", [9, 13, 17, 24, 60])
def test_damage_is_noticed(position: int) -> None:
    damaged = bytearray(identity_format.pack(IDENTITY))
    damaged[position] ^= 1
    with pytest.raises(errors.DeviceCorruptError):
        identity_format.unpack(damaged)


def test_zeros_are_unformatted_and_other_data_is_foreign() -> None:
    with pytest.raises(errors.UnformattedDeviceError):
        identity_format.unpack(bytes(4096))
    with pytest.raises(errors.ForeignDeviceError):
        identity_format.unpack(b"\xebXFSB".ljust(4096, b"\0"))


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{",
        b'{"node_id":"x"}',
        b"\xff",
        b"[" * 4000,
        GOLDEN_PAYLOAD.replace(b'"zone_count":64', b'"zone_count":1e999'),
    ],
)
def test_a_verified_payload_that_is_no_identity_is_corrupt(payload: bytes) -> None:
    packed = frame.pack(identity_format.MAGIC, version=2, payload=payload)
    with pytest.raises(errors.DeviceCorruptError, match="not an identity"):
        identity_format.unpack(packed)


def test_an_unknown_version_is_refused_by_number() -> None:
    packed = frame.pack(identity_format.MAGIC, version=3, payload=GOLDEN_PAYLOAD)
    with pytest.raises(errors.DeviceCorruptError, match="version 3"):
        identity_format.unpack(packed)


def test_a_label_that_does_not_fit_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError):
        identity_format.pack(dataclasses.replace(IDENTITY, label="x" * 4096))
