"""The keys that conditions of a bucket's policy may name, and the actions each says something of.

Names are compared in any case; what follows a slash, the key of a tag, is compared as it is. Keys
that begin with ``aws:`` may be any, as on S3: one that is told of no request here is absent.

Source: AWS Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from couchestor_gateway.protocol.policy import actions

_GLOBAL_PREFIX: Final = "aws:"

_EVERYWHERE: Final = frozenset(
    {
        "s3:accessgrantsinstancearn",
        "s3:accesspointnetworkorigin",
        "s3:authtype",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
        "s3:resourceaccount",
        "s3:signatureage",
        "s3:signatureversion",
        "s3:tlsversion",
        "s3:x-amz-content-sha256",
    }
)

_LISTINGS: Final = ("ListBucket", "ListBucketVersions")
_ACL_WRITES: Final = (
    *("CreateBucket", "PutBucketAcl", "PutObject", "PutObjectAcl", "PutObjectVersionAcl"),
    *("BypassGovernanceRetention", "ReplicateObject"),
)
_TAG_WRITES: Final = (
    *("PutObject", "PutObjectTagging", "PutObjectVersionTagging"),
    *("BypassGovernanceRetention", "ReplicateTags"),
)
_TAGGED_READS: Final = (
    *("GetObject", "GetObjectAcl", "GetObjectAttributes", "GetObjectTagging"),
    *("GetObjectVersion", "GetObjectVersionAcl", "GetObjectVersionAttributes"),
    *("GetObjectVersionTagging", "PutObjectAcl", "PutObjectTagging", "PutObjectVersionAcl"),
    *("PutObjectVersionTagging", "DeleteObjectTagging", "DeleteObjectVersionTagging"),
    "ReplicateTags",
)
_VERSIONS: Final = (
    *("DeleteObjectVersion", "DeleteObjectVersionTagging", "GetObjectVersion"),
    *("GetObjectVersionAcl", "GetObjectVersionAttributes", "GetObjectVersionForReplication"),
    *("GetObjectVersionTagging", "GetObjectVersionTorrent", "PutObjectVersionAcl"),
    *("PutObjectVersionTagging", "RestoreObject", "GetObjectLegalHold", "GetObjectRetention"),
    *("PutObjectLegalHold", "PutObjectRetention", "BypassGovernanceRetention"),
)
_WRITES: Final = ("PutObject", "BypassGovernanceRetention", "ReplicateObject")
_RETENTION: Final = ("PutObject", "PutObjectRetention", "BypassGovernanceRetention")

_SPECIFIC: Final[Mapping[str, tuple[str, ...]]] = {
    "s3:buckettag/": tuple(
        name.removeprefix(actions.PREFIX)
        for name, kind in actions.KINDS.items()
        if kind is not actions.Kind.OTHER
    ),
    "s3:delimiter": _LISTINGS,
    "s3:existingobjecttag/": _TAGGED_READS,
    "s3:if-match": ("PutObject", "DeleteObject"),
    "s3:if-none-match": ("PutObject",),
    "s3:inventoryaccessibleoptionalfields": ("PutInventoryConfiguration",),
    "s3:locationconstraint": ("CreateBucket",),
    "s3:max-keys": _LISTINGS,
    "s3:object-lock-legal-hold": ("PutObject", "PutObjectLegalHold", "BypassGovernanceRetention"),
    "s3:object-lock-mode": _RETENTION,
    "s3:object-lock-remaining-retention-days": _RETENTION,
    "s3:object-lock-retain-until-date": _RETENTION,
    "s3:objectcreationoperation": ("PutObject",),
    "s3:prefix": _LISTINGS,
    "s3:requestobjecttag/": _TAG_WRITES,
    "s3:requestobjecttagkeys": _TAG_WRITES,
    "s3:versionid": _VERSIONS,
    "s3:x-amz-acl": _ACL_WRITES,
    "s3:x-amz-copy-source": _WRITES,
    "s3:x-amz-grant-full-control": _ACL_WRITES,
    "s3:x-amz-grant-read": _ACL_WRITES,
    "s3:x-amz-grant-read-acp": _ACL_WRITES,
    "s3:x-amz-grant-write": _ACL_WRITES,
    "s3:x-amz-grant-write-acp": _ACL_WRITES,
    "s3:x-amz-metadata-directive": _WRITES,
    "s3:x-amz-object-ownership": ("CreateBucket",),
    "s3:x-amz-server-side-encryption": _WRITES,
    "s3:x-amz-server-side-encryption-aws-kms-key-id": _WRITES,
    "s3:x-amz-server-side-encryption-customer-algorithm": _WRITES,
    "s3:x-amz-storage-class": (*_WRITES, "PutObjectAcl", "PutObjectVersionAcl"),
    "s3:x-amz-website-redirect-location": _WRITES,
}
_APPLYING: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        key: frozenset(f"{actions.PREFIX}{name}" for name in names)
        for key, names in _SPECIFIC.items()
    }
)
assert frozenset().union(*_APPLYING.values()) <= actions.KINDS.keys()


def normal(key: str) -> str:
    """A key as everything else here names it: in lower case up to a slash."""
    name, slash, parameter = key.partition("/")
    return f"{name.lower()}{slash}{parameter}"


def is_known(key: str) -> bool:
    """Whether S3 knows a key, given as ``normal`` writes it."""
    name = _name(key)
    return name.startswith(_GLOBAL_PREFIX) or name in _EVERYWHERE or name in _APPLYING


def applies(key: str, action: str) -> bool:
    """Whether a key says something of requests for an action; an unknown one does of none."""
    found = _APPLYING.get(_name(key))
    return is_known(key) if found is None else action in found


def applies_to_any(key: str, of: Iterable[str]) -> bool:
    """Whether a known key does of any of these actions."""
    found = _APPLYING.get(_name(key))
    return found is None or not found.isdisjoint(of)


def _name(key: str) -> str:
    name, slash, _ = key.partition("/")
    return name + slash
