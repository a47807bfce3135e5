"""The table of what operations need, held to the actions that policies can name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from couchestor_gateway.protocol import operation_needs
from couchestor_gateway.protocol.operation_needs import Need, Place
from couchestor_gateway.protocol.policy import actions


def _every(need: Need) -> Iterator[Need]:
    yield need
    if need.versioned is not None:
        yield from _every(need.versioned)
    for _, further in need.further:
        yield from _every(further)


@pytest.mark.parametrize("operation", operation_needs.NEEDS)
def test_each_operation_has_actions_that_a_policy_can_name(operation: str) -> None:
    need = operation_needs.NEEDS[operation]
    if need.place is Place.SERVICE:
        # Policies of users alone name them.
        assert len(need.actions) == 1
        assert set(need.actions) <= actions.KINDS.keys()
        return
    for each in _every(need):
        assert each.actions
        assert set(each.actions) <= actions.KINDS.keys()
        assert (each.permission is None) == (
            each.place in (Place.OWN_BUCKET, Place.OWN_OBJECT, Place.ANYBODY)
            or operation in ("AbortMultipartUpload", "ListParts")
        )


@pytest.mark.parametrize("operation", operation_needs.NEEDS)
def test_what_is_needed_of_an_object_is_an_action_on_one(operation: str) -> None:
    """The names of operations say it."""
    need = operation_needs.NEEDS[operation]
    of_bucket = operation.endswith("ObjectLockConfiguration")
    is_on_object = not of_bucket and any(
        word in operation for word in ("Object", "Part", "MultipartUpload")
    )
    is_listing = operation.startswith("List") and operation != "ListParts"
    kind = actions.Kind.OBJECT if is_on_object and not is_listing else actions.Kind.BUCKET
    if operation == "ListBuckets":
        kind = actions.Kind.OTHER
    for each in _every(need):
        assert {actions.KINDS[action] for action in each.actions} <= {kind}


def test_a_version_that_is_named_needs_an_action_of_its_own() -> None:
    versioned = {name: need for name, need in operation_needs.NEEDS.items() if need.versioned}
    assert set(versioned) == {
        *("GetObject", "HeadObject", "GetObjectAttributes", "GetObjectAcl", "PutObjectAcl"),
        *("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging"),
        "DeleteObject",
    }
    for need in versioned.values():
        assert need.versioned is not None
        assert all("ObjectVersion" in action for action in need.versioned.actions)
        assert len(need.versioned.actions) == len(need.actions)


def test_the_actions_of_reading_and_writing() -> None:
    needs = operation_needs.NEEDS
    assert needs["GetObjectAttributes"].actions == ("s3:GetObject", "s3:GetObjectAttributes")
    assert needs["ListObjectVersions"].actions == ("s3:ListBucketVersions",)
    assert needs["ListMultipartUploads"].actions == ("s3:ListBucketMultipartUploads",)
    assert needs["ListParts"].actions == ("s3:ListMultipartUploadParts",)
    writes = ("PutObject", "PostObject", "CopyObject", "CreateMultipartUpload")
    for name in writes:
        further = [need.actions for _, need in needs[name].further]
        assert further == [
            ("s3:PutObjectAcl",),
            ("s3:PutObjectTagging",),
            ("s3:PutObjectRetention",),
            ("s3:PutObjectLegalHold",),
        ]
    for name in (*writes, "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"):
        assert needs[name].actions == ("s3:PutObject",)
    for name in ("DeleteObject", "DeleteObjects"):
        assert [need.actions for _, need in needs[name].further] == [
            ("s3:BypassGovernanceRetention",)
        ]
