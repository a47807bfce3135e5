"""What each operation needs its caller to have: the one table of it.

Operations that ACLs say nothing about are the bucket owner's, as on S3, where a policy of the owner
would have to grant them.
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
    """Of nothing: any signed caller."""
    OWN_BUCKET = "own bucket"
    """Of the bucket, whose owner the caller must be."""
    BUCKET = "bucket"
    """Of the bucket, by its ACL."""
    OBJECT = "object"
    """Of a version, by its ACL."""
    UPLOAD = "upload"
    """Of an upload, whose initiator or whose bucket's owner the caller must be; and of the bucket,
    by its ACL, if a permission is named."""


class Need(NamedTuple):
    """Where a permission is needed, and which."""

    place: Place
    permission: Permission | None = None


_SIGNED: Final = Need(Place.SERVICE)
_OWNER: Final = Need(Place.OWN_BUCKET)
_LIST: Final = Need(Place.BUCKET, Permission.READ)
_WRITE: Final = Need(Place.BUCKET, Permission.WRITE)
_READ_OBJECT: Final = Need(Place.OBJECT, Permission.READ)
_GO_ON: Final = Need(Place.UPLOAD, Permission.WRITE)

DELETE_VERSION: Final = "DeleteObjectVersion"
"""DeleteObject and DeleteObjects where they name a version, which is then gone for good."""

NEEDS: Final[Mapping[str, Need]] = MappingProxyType(
    {
        "ListBuckets": _SIGNED,
        "CreateBucket": _SIGNED,
        "DeleteBucket": _OWNER,
        "HeadBucket": _LIST,
        "GetBucketLocation": _OWNER,
        "GetBucketTagging": _OWNER,
        "PutBucketTagging": _OWNER,
        "DeleteBucketTagging": _OWNER,
        "GetBucketVersioning": _OWNER,
        "PutBucketVersioning": _OWNER,
        "GetBucketOwnershipControls": _OWNER,
        "PutBucketOwnershipControls": _OWNER,
        "DeleteBucketOwnershipControls": _OWNER,
        "GetPublicAccessBlock": _OWNER,
        "PutPublicAccessBlock": _OWNER,
        "DeletePublicAccessBlock": _OWNER,
        "GetBucketAcl": Need(Place.BUCKET, Permission.READ_ACP),
        "PutBucketAcl": Need(Place.BUCKET, Permission.WRITE_ACP),
        "ListObjects": _LIST,
        "ListObjectsV2": _LIST,
        "ListObjectVersions": _LIST,
        "ListMultipartUploads": _LIST,
        "GetObject": _READ_OBJECT,
        "HeadObject": _READ_OBJECT,
        "GetObjectAttributes": _READ_OBJECT,
        "GetObjectAcl": Need(Place.OBJECT, Permission.READ_ACP),
        "PutObjectAcl": Need(Place.OBJECT, Permission.WRITE_ACP),
        "GetObjectTagging": _OWNER,
        "PutObjectTagging": _OWNER,
        "DeleteObjectTagging": _OWNER,
        "PutObject": _WRITE,
        "PostObject": _WRITE,
        # And READ of the source.
        "CopyObject": _WRITE,
        "DeleteObject": _WRITE,
        "DeleteObjects": _WRITE,
        DELETE_VERSION: _OWNER,
        "CreateMultipartUpload": _WRITE,
        "UploadPart": _GO_ON,
        # And READ of the source.
        "UploadPartCopy": _GO_ON,
        "CompleteMultipartUpload": _GO_ON,
        "AbortMultipartUpload": Need(Place.UPLOAD),
        "ListParts": Need(Place.UPLOAD),
    }
)
"""Operation -> what it needs."""
