"""What each operation needs its caller to have: the one table of it.

Whether somebody has it a bucket's policy says by the actions named here, and where it says nothing,
access control lists. What those say nothing about is the bucket owner's.

Source: AWS S3 API reference, "Required permissions for Amazon S3 API operations".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from couchestor_domain.access import Permission


class Place(enum.Enum):
    """Of what a permission is needed."""

    SERVICE = "service"
    """Of nothing: any signed caller, if the policies of a tenant's user allow it."""
    OWN_BUCKET = "own bucket"
    """Of the bucket, whose owner the caller must be."""
    BUCKET = "bucket"
    """Of the bucket, by its ACL."""
    KEYS = "keys"
    """Of the bucket, by its ACL; its policy is asked for each key that the body names."""
    OBJECT = "object"
    """Of a version, by its ACL."""
    OWN_OBJECT = "own object"
    """Of a version, whose bucket's owner the caller must be."""
    UPLOAD = "upload"
    """Of an upload, whose initiator or whose bucket's owner the caller must be; and of the bucket,
    by its ACL, if a permission is named."""
    ANYBODY = "anybody"
    """Of nothing, but a policy may deny it."""


class Asked(enum.Enum):
    """What a request may ask for beside its operation."""

    ACL = "acl"
    TAGS = "tags"
    RETENTION = "retention"
    LEGAL_HOLD = "legal hold"
    BYPASS = "bypass of retention"


class Need(NamedTuple):
    """Where a permission is needed, and which."""

    place: Place
    permission: Permission | None = None
    actions: tuple[str, ...] = ()
    """What a policy allows or denies it by; all of them."""
    versioned: Need | None = None
    """What is needed instead where the request names a version."""
    further: tuple[tuple[Asked, Need], ...] = ()
    """What is needed, too, where the request asks for more."""


def _owner(action: str) -> Need:
    return Need(Place.OWN_BUCKET, actions=(f"s3:{action}",))


def _bucket(permission: Permission, action: str) -> Need:
    return Need(Place.BUCKET, permission, (f"s3:{action}",))


def _upload(permission: Permission | None, action: str) -> Need:
    return Need(Place.UPLOAD, permission, (f"s3:{action}",))


def _version(place: Place, permission: Permission | None, *names: str) -> Need:
    """Of a version: by ``s3:GetObject...``, or ``s3:GetObjectVersion...`` where one is named."""
    named = tuple(f"s3:{name.replace('Object', 'ObjectVersion', 1)}" for name in names)
    actions = tuple(f"s3:{name}" for name in names)
    return Need(place, permission, actions, Need(place, permission, named))


_READ_OBJECT: Final = _version(Place.OBJECT, Permission.READ, "GetObject")
_BYPASS: Final = (
    # What is not retained anybody may delete who may delete; that is judged with the version.
    (Asked.BYPASS, Need(Place.ANYBODY, actions=("s3:BypassGovernanceRetention",))),
)

WRITE_TAGS: Final = _bucket(Permission.WRITE, "PutObjectTagging")
"""Of a write that gives an object tags."""
COPY_TAGS: Final = _version(Place.OBJECT, Permission.READ, "GetObjectTagging")
"""Of the source of a copy that takes its tags along."""
WRITE_RETENTION: Final = _owner("PutObjectRetention")
"""Of a write that retains what it writes."""
WRITE_LEGAL_HOLD: Final = _owner("PutObjectLegalHold")
"""Of a write that holds what it writes."""
BYPASS_GOVERNANCE: Final = _owner("BypassGovernanceRetention")
"""Of removing, or retaining for less time, what is retained in governance mode."""
READ_RETENTION: Final = Need(Place.OWN_OBJECT, actions=("s3:GetObjectRetention",))
"""Of being told with a version how long it is kept."""
READ_LEGAL_HOLD: Final = Need(Place.OWN_OBJECT, actions=("s3:GetObjectLegalHold",))
"""Of being told with a version whether it is held."""
READ_SOURCE: Final = _READ_OBJECT
"""Of the source of any copy."""
READ_ETAG: Final = _READ_OBJECT
"""Of a delete on condition of an ETag, which else could be guessed so."""
FIND: Final = _bucket(Permission.READ, "ListBucket")
"""Of being told that a key is missing."""

_WRITE: Final = Need(
    Place.BUCKET,
    Permission.WRITE,
    ("s3:PutObject",),
    further=(
        # An object is its writer's, who may give it any ACL.
        (Asked.ACL, Need(Place.ANYBODY, actions=("s3:PutObjectAcl",))),
        (Asked.TAGS, WRITE_TAGS),
        (Asked.RETENTION, WRITE_RETENTION),
        (Asked.LEGAL_HOLD, WRITE_LEGAL_HOLD),
    ),
)

DELETE_VERSION: Final = _owner("DeleteObjectVersion")._replace(further=_BYPASS)
"""Of the deletion of one version, which is then gone for good."""
DELETE_KEY: Final = _bucket(Permission.WRITE, "DeleteObject")._replace(
    versioned=DELETE_VERSION, further=_BYPASS
)
"""Of the deletion of a key."""

NEEDS: Final[Mapping[str, Need]] = MappingProxyType(
    {
        "ListBuckets": Need(Place.SERVICE, actions=("s3:ListAllMyBuckets",)),
        "CreateBucket": Need(Place.SERVICE, actions=("s3:CreateBucket",)),
        "DeleteBucket": _owner("DeleteBucket"),
        "HeadBucket": _bucket(Permission.READ, "ListBucket"),
        "GetBucketLocation": _owner("GetBucketLocation"),
        "GetBucketTagging": _owner("GetBucketTagging"),
        "PutBucketTagging": _owner("PutBucketTagging"),
        "DeleteBucketTagging": _owner("PutBucketTagging"),
        "GetBucketCors": _owner("GetBucketCORS"),
        "PutBucketCors": _owner("PutBucketCORS"),
        "DeleteBucketCors": _owner("PutBucketCORS"),
        "GetBucketNotificationConfiguration": _owner("GetBucketNotification"),
        "PutBucketNotificationConfiguration": _owner("PutBucketNotification"),
        "GetBucketLogging": _owner("GetBucketLogging"),
        "PutBucketLogging": _owner("PutBucketLogging"),
        "GetBucketVersioning": _owner("GetBucketVersioning"),
        "PutBucketVersioning": _owner("PutBucketVersioning"),
        "GetBucketOwnershipControls": _owner("GetBucketOwnershipControls"),
        "PutBucketOwnershipControls": _owner("PutBucketOwnershipControls"),
        "DeleteBucketOwnershipControls": _owner("PutBucketOwnershipControls"),
        "GetPublicAccessBlock": _owner("GetBucketPublicAccessBlock"),
        "PutPublicAccessBlock": _owner("PutBucketPublicAccessBlock"),
        "DeletePublicAccessBlock": _owner("PutBucketPublicAccessBlock"),
        "GetBucketPolicy": _owner("GetBucketPolicy"),
        "PutBucketPolicy": _owner("PutBucketPolicy"),
        "DeleteBucketPolicy": _owner("DeleteBucketPolicy"),
        "GetBucketPolicyStatus": _owner("GetBucketPolicyStatus"),
        "GetBucketLifecycleConfiguration": _owner("GetLifecycleConfiguration"),
        "PutBucketLifecycleConfiguration": _owner("PutLifecycleConfiguration"),
        "DeleteBucketLifecycle": _owner("PutLifecycleConfiguration"),
        "GetObjectLockConfiguration": _owner("GetBucketObjectLockConfiguration"),
        "PutObjectLockConfiguration": _owner("PutBucketObjectLockConfiguration"),
        "GetObjectRetention": READ_RETENTION,
        "PutObjectRetention": Need(Place.OWN_OBJECT, actions=("s3:PutObjectRetention",)),
        "GetObjectLegalHold": READ_LEGAL_HOLD,
        "PutObjectLegalHold": Need(Place.OWN_OBJECT, actions=("s3:PutObjectLegalHold",)),
        "GetBucketAcl": _bucket(Permission.READ_ACP, "GetBucketAcl"),
        "PutBucketAcl": _bucket(Permission.WRITE_ACP, "PutBucketAcl"),
        "ListObjects": _bucket(Permission.READ, "ListBucket"),
        "ListObjectsV2": _bucket(Permission.READ, "ListBucket"),
        "ListObjectVersions": _bucket(Permission.READ, "ListBucketVersions"),
        "ListMultipartUploads": _bucket(Permission.READ, "ListBucketMultipartUploads"),
        "GetObject": _READ_OBJECT,
        "HeadObject": _READ_OBJECT,
        "GetObjectAttributes": _version(
            Place.OBJECT, Permission.READ, "GetObject", "GetObjectAttributes"
        ),
        "GetObjectAcl": _version(Place.OBJECT, Permission.READ_ACP, "GetObjectAcl"),
        "PutObjectAcl": _version(Place.OBJECT, Permission.WRITE_ACP, "PutObjectAcl"),
        "GetObjectTagging": _version(Place.OWN_OBJECT, None, "GetObjectTagging"),
        "PutObjectTagging": _version(Place.OWN_OBJECT, None, "PutObjectTagging"),
        "DeleteObjectTagging": _version(Place.OWN_OBJECT, None, "DeleteObjectTagging"),
        "PutObject": _WRITE,
        "PostObject": _WRITE,
        # And READ_SOURCE of the source.
        "CopyObject": _WRITE,
        "DeleteObject": DELETE_KEY,
        "DeleteObjects": DELETE_KEY._replace(place=Place.KEYS, versioned=None),
        "CreateMultipartUpload": _WRITE,
        "UploadPart": _upload(Permission.WRITE, "PutObject"),
        # And READ_SOURCE of the source.
        "UploadPartCopy": _upload(Permission.WRITE, "PutObject"),
        "CompleteMultipartUpload": _upload(Permission.WRITE, "PutObject"),
        "AbortMultipartUpload": _upload(None, "AbortMultipartUpload"),
        "ListParts": _upload(None, "ListMultipartUploadParts"),
    }
)
"""Operation -> what it needs."""

OWNERS_ALWAYS: Final = frozenset(
    {"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"}
)
"""What no policy takes from the bucket's owner, who could not get it back."""
