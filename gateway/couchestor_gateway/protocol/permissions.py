"""What a caller may do with a bucket or an object.

    caller                          may
    owner                           read and replace the ACL, always; else what the ACL grants,
                                    which is everything unless the owner revoked it
    another user                    what the ACL grants to the user, to AllUsers, to
                                    AuthenticatedUsers
    nobody (unsigned)               what the ACL grants to AllUsers

What overrules ACLs is the bucket's: with ``BucketOwnerEnforced`` its owner may do everything with
it and all in it, and nobody else anything; with ``IgnorePublicAcls`` grants to groups count for
nothing. An object's ACL knows nothing of the bucket's and the other way round.

Source: Amazon S3 User Guide, "Access control list (ACL) overview".
"""

from __future__ import annotations

from typing import Final

from couchestor_domain import access, objects
from couchestor_domain.access import Permission

_ALWAYS_OWNERS: Final = (Permission.READ_ACP, Permission.WRITE_ACP)


def on_bucket(bucket: objects.BucketRecord, caller: access.Caller, permission: Permission) -> bool:
    """Whether the bucket's ACL, or being its owner, gives the caller a permission on it."""
    rules = bucket.access
    # Nearly every request: a private bucket and its owner.
    if rules.acl is None or not rules.has_acls:
        return caller == bucket.owner
    return _granted(rules.acl, bucket.owner, caller, permission, rules.heeds_groups)


def on_object(
    bucket: objects.BucketRecord,
    record: objects.ObjectRecord,
    caller: access.Caller,
    permission: Permission,
) -> bool:
    """Whether the ACL of an object in the bucket, or being its owner, gives a permission on it."""
    rules = bucket.access
    if not rules.has_acls:
        return caller == bucket.owner
    if record.acl is None:
        return caller == record.owner
    return _granted(record.acl, record.owner, caller, permission, rules.heeds_groups)


def owner_of(bucket: objects.BucketRecord, record: objects.ObjectRecord) -> str:
    """Whose an object counts as."""
    return record.owner if bucket.access.has_acls else bucket.owner


def _granted(
    acl: access.Acl,
    owner: str,
    caller: access.Caller,
    permission: Permission,
    heeds_groups: bool,
) -> bool:
    if caller == owner and permission in _ALWAYS_OWNERS:
        return True
    for grant in acl:
        if grant.permission not in (permission, Permission.FULL_CONTROL):
            continue
        if grant.group is None:
            if caller is not None and grant.user_id == caller:
                return True
        elif heeds_groups and (caller is not None or grant.group is access.Group.ALL_USERS):
            return True
    return False
