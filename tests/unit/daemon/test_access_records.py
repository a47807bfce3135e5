"""ACLs and what else says who may use a bucket, as records hold them."""

from __future__ import annotations

import pathlib
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from couchestor_daemon.formats import access_records, index_records
from couchestor_domain import access, errors
from couchestor_domain.access import Grant, Group, Permission

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
ACL = (
    Grant(Permission.READ, group=Group.ALL_USERS),
    Grant(Permission.WRITE, group=Group.AUTHENTICATED_USERS),
    Grant(Permission.READ_ACP, "ada"),
    Grant(Permission.WRITE_ACP, "ada"),
    Grant(Permission.FULL_CONTROL, "bob"),
)
STORED = access_records.acl_to_stored(ACL)
RECORDS: dict[str, Any] = {
    "index_bucket_v1": index_records.Bucket(
        bucket_id=7,
        owner="ada",
        created_ns=5,
        region="r",
        versioning="Enabled",
        acl=STORED,
        ownership="BucketOwnerPreferred",
        public_access=0b0101,
        policy='{"Id": "é"}',
        has_lifecycle=True,
        object_lock=(1, 30, 0),
        settings=(("cors", b"<C/>"),),
    ),
    "index_object_v1": index_records.Object(
        version_id="null",
        size_bytes=3,
        etag="e",
        modified_ns=9,
        headers={"content-type": "a/b"},
        metadata={"m": "1"},
        checksums={"crc32": "x"},
        checksum_type="FULL_OBJECT",
        owner="bob",
        part_count=0,
        part_sizes_bytes=(),
        extents=((1, 3),),
        parts_id=0,
        upload_id="",
        order=0,
        tags={"t": "v"},
        acl=STORED,
        lock=(2, 1_900_000_000_000_000_000, 2),
    ),
    "index_upload_v1": index_records.Upload(
        bucket="b",
        key="k",
        initiated_ns=1,
        headers={},
        metadata={},
        owner="ada",
        checksum_algorithm="",
        checksum_type="",
        bucket_id=7,
        list_id=8,
        parts_id=9,
        acl=(),
        initiator="bob",
        lock=(1, 1_900_000_000_000_000_000, 0),
    ),
    "index_completed_v1": index_records.Completed(
        bucket="b", key="k", initiated_ns=1, asked=b"digest", version_id="null", initiator="bob"
    ),
}


NO_ACL: dict[str, Any] = {"acl": None}
ADDED: dict[str, list[dict[str, Any]]] = {
    "index_bucket_v1": [
        {"settings": ()},
        {"object_lock": None},
        {"has_lifecycle": False},
        {"policy": None},
        {"acl": None, "ownership": "", "public_access": None},
    ],
    "index_object_v1": [{"lock": None}, NO_ACL],
    "index_upload_v1": [{"lock": None}, {"acl": None, "initiator": ""}],
    "index_completed_v1": [{"initiator": ""}],
}
"""What fields were added to a record, the last ones first, and what stands for their absence."""


@pytest.mark.parametrize("name", RECORDS)
def test_golden_bytes(name: str) -> None:
    record = RECORDS[name]
    written, *before = (GOLDEN / f"{name}.hex").read_text().split()
    assert index_records.pack(record).hex() == written
    assert index_records.unpack(type(record), bytes.fromhex(written)) == record
    # Each further line was written before the fields of the line above it were there.
    for line, lacking in zip(before, ADDED[name], strict=True):
        record = msgspec.structs.replace(record, **lacking)
        assert index_records.unpack(type(record), bytes.fromhex(line)) == record


def test_what_was_written_before_is_private_and_its_owners() -> None:
    old = bytes.fromhex((GOLDEN / "index_object_v1.hex").read_text().split()[-1])
    record = index_records.object_to_domain(
        "b", "k", index_records.unpack(index_records.Object, old)
    )
    assert (record.acl, record.owner) == (None, "bob")
    old = bytes.fromhex((GOLDEN / "index_upload_v1.hex").read_text().split()[-1])
    upload = index_records.upload_to_domain("u", index_records.unpack(index_records.Upload, old))
    assert (upload.acl, upload.owner, upload.initiator) == (None, "ada", "ada")


GRANTS = st.builds(
    Grant, st.sampled_from(list(Permission)), st.text(max_size=9), st.none()
) | st.builds(Grant, st.sampled_from(list(Permission)), st.just(""), st.sampled_from(list(Group)))


@hypothesis.given(st.none() | st.lists(GRANTS, max_size=9).map(tuple))
def test_acls_come_back(acl: access.Acl | None) -> None:
    assert access_records.acl_to_domain(access_records.acl_to_stored(acl)) == acl


@pytest.mark.parametrize("grant", [(0, 0, "x"), (6, 0, "x"), (1, 3, "")])
def test_an_unknown_code_is_damage(grant: tuple[int, int, str]) -> None:
    with pytest.raises(errors.IndexCorruptError, match="unknown code"):
        access_records.acl_to_domain((grant,))


def test_blocks_come_back() -> None:
    for bits in (None, *range(16)):
        assert access_records.block_to_stored(access_records.block_to_domain(bits)) == bits


def test_the_longest_acl_stays_small() -> None:
    user_id = "x" * access.USER_ID_CHARACTERS_MAX
    acl = tuple(Grant(Permission.READ, user_id) for _ in range(access.GRANTS_MAX))
    assert len(msgspec.msgpack.encode(access_records.acl_to_stored(acl))) < 10_500
