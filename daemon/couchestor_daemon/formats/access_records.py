"""Access control lists as index records hold them.

A grant is an array: permission (1 READ, 2 WRITE, 3 READ_ACP, 4 WRITE_ACP, 5 FULL_CONTROL), group
(0 none, 1 AllUsers, 2 AuthenticatedUsers), user id (empty for a group). No array of grants at all
stands for the owner's FULL_CONTROL. The public access block is a number: bits 0 to 3 are
BlockPublicAcls, IgnorePublicAcls, BlockPublicPolicy and RestrictPublicBuckets.
"""

from __future__ import annotations

from typing import Final

from couchestor_domain import access, errors

StoredGrant = tuple[int, int, str]
StoredAcl = tuple[StoredGrant, ...] | None

_PERMISSIONS: Final = {
    1: access.Permission.READ,
    2: access.Permission.WRITE,
    3: access.Permission.READ_ACP,
    4: access.Permission.WRITE_ACP,
    5: access.Permission.FULL_CONTROL,
}
_GROUPS: Final = {
    0: None,
    1: access.Group.ALL_USERS,
    2: access.Group.AUTHENTICATED_USERS,
}
_PERMISSION_CODES: Final = {permission: code for code, permission in _PERMISSIONS.items()}
_GROUP_CODES: Final = {group: code for code, group in _GROUPS.items()}


def acl_to_stored(acl: access.Acl | None) -> StoredAcl:
    """An ACL as it is stored."""
    if acl is None:
        return None
    return tuple(
        (_PERMISSION_CODES[grant.permission], _GROUP_CODES[grant.group], grant.user_id)
        for grant in acl
    )


def acl_to_domain(stored: StoredAcl) -> access.Acl | None:
    """A stored ACL as the domain's. Raises IndexCorruptError."""
    if stored is None:
        return None
    try:
        return tuple(
            access.Grant(_PERMISSIONS[permission], user_id, _GROUPS[group])
            for permission, group, user_id in stored
        )
    except KeyError as exc:
        raise errors.IndexCorruptError(
            f"the index holds an access control list with an unknown code {exc}; "
            "run `couchestor recover`"
        ) from exc


def block_to_stored(block: access.PublicAccessBlock | None) -> int | None:
    """A public access block as it is stored."""
    if block is None:
        return None
    return (
        block.block_public_acls
        | block.ignore_public_acls << 1
        | block.block_public_policy << 2
        | block.restrict_public_buckets << 3
    )


def block_to_domain(stored: int | None) -> access.PublicAccessBlock | None:
    """A stored public access block as the domain's."""
    if stored is None:
        return None
    return access.PublicAccessBlock(
        block_public_acls=bool(stored & 1),
        ignore_public_acls=bool(stored & 2),
        block_public_policy=bool(stored & 4),
        restrict_public_buckets=bool(stored & 8),
    )
