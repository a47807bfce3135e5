"""What ceph/s3-tests said, kept beside the page, and why tests of it fail."""

from __future__ import annotations

import fnmatch
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

RESULT: Final = pathlib.Path(__file__).with_name("s3-tests.json")

_ENCRYPTION: Final = "server-side encryption is not built"
_HARNESS: Final = "the SDK writes the header anew, so what is sent is a good request"
_PART_NUMBER: Final = "wants 400 where AWS answers 416 for a part number that is not there"
_EXPIRES: Final = "wants 403 where AWS answers 400 for an impossible X-Amz-Expires"
_TENANTED: Final = "names buckets of other tenants as only Ceph does (`tenant:bucket`)"

REASONS: Final = {
    "test_bucket_policy_put_obj_request_obj_tag": (
        "the policy gives the tagging to the other client, the test expects it of this one"
    ),
    "test_bucket_policy_set_condition_operator_end_with_IfExists": (
        "wants an owner refused whom an allowance with a condition does not name"
    ),
    "test_bucket_policy_different_tenant": _TENANTED,
    "test_bucket_policy_tenanted_bucket": _TENANTED,
    "test_bucket_policy_put_obj_*": _ENCRYPTION,
    "test_list_buckets_anonymous": "wants an empty list where AWS refuses: nobody signed",
    "test_*_create_bad_*": _HARNESS,
    "test_*_create_amz_date_*": _HARNESS,
    "test_multipart_get_part": _PART_NUMBER,
    "test_multipart_single_get_part": _PART_NUMBER,
    "test_non_multipart_get_part": _PART_NUMBER,
    "test_object_raw_*_expire*": _EXPIRES,
    "test_object_raw_get_x_amz_expires_out_*": _EXPIRES,
    "test_object_set_get_unicode_metadata": (
        "wants raw UTF-8 in a header where AWS answers RFC 2047's encoding"
    ),
    "test_object_read_unreadable": "wants 400 for a key that is no UTF-8; it is none here: 404",
    "test_delete_marker_nonversioned": (
        "wants x-amz-delete-marker: false on a plain 404; AWS omits it"
    ),
    "test_delete_marker_expiration": (
        "wants x-amz-delete-marker: false on a plain 404; AWS omits it"
    ),
    "test_put_bucket_logging": "wants grants told back, and encryption of the target",
    "test_put_bucket_logging_errors": (
        "wants NoSuchKey where AWS answers InvalidTargetBucketForLogging"
    ),
    "test_bucket_logging_owner": "wants a policy without Resource taken",
    "test_put_bucket_logging_permissions": (
        "wants a policy for the log service where the bucket's owner is enough here"
    ),
    "test_put_bucket_logging_policy_wildcard": "wants another owner's target",
    "test_lifecycle_*transition*": "there is one storage class: transitions are refused",
    "test_lifecycle_cloud_*": "there is one storage class: transitions are refused",
    "test_lifecycle_noncur_transition": "there is one storage class: transitions are refused",
    "*kms*": _ENCRYPTION,
    "*sse*": _ENCRYPTION,
    "*encrypt*": _ENCRYPTION,
    "test_copy_*enc*": _ENCRYPTION,
    "test_put_obj_enc_*": _ENCRYPTION,
}
"""Names of tests, with wildcards -> why they fail. The first that fits counts."""


class Category(NamedTuple):
    """Tests of one subject."""

    name: str
    passed_count: int
    total_count: int
    failed: Mapping[str, str]
    """Test -> why it does not pass."""


class Result(NamedTuple):
    """Of a run."""

    revision: str
    commits: str
    taken_on: str
    options: str
    categories: tuple[Category, ...]


def load() -> Result:
    """What is kept."""
    document: dict[str, Any] = json.loads(RESULT.read_text())
    return Result(
        document["revision"],
        document["commits"],
        document["taken_on"],
        document["options"],
        tuple(
            Category(name, each["passed"], each["total"], each["failed"])
            for name, each in document["categories"].items()
        ),
    )


def reason(test: str) -> str:
    """Why it fails, if that is known."""
    for pattern, why in REASONS.items():
        if fnmatch.fnmatchcase(test, pattern):
            return why
    return ""
