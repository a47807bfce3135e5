"""Who may do what, against the sentences of S3's documentation written out one by one."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from couchestor_domain import access, objects
from couchestor_domain.access import Grant, Group, Ownership, Permission
from couchestor_gateway.protocol import permissions

USERS = ("ada", "bob", "eve")
CALLERS = st.sampled_from([*USERS, None])
PERMISSIONS = st.sampled_from(list(Permission))
ASKED = st.sampled_from([p for p in Permission if p is not Permission.FULL_CONTROL])
GRANTS = st.builds(Grant, PERMISSIONS, st.sampled_from(USERS), st.none()) | st.builds(
    lambda permission, group: Grant(permission, group=group),
    PERMISSIONS,
    st.sampled_from(list(Group)),
)
ACLS = st.none() | st.lists(GRANTS, max_size=5).map(tuple)
BLOCKS = st.none() | st.builds(
    access.PublicAccessBlock,
    block_public_acls=st.booleans(),
    ignore_public_acls=st.booleans(),
    block_public_policy=st.booleans(),
    restrict_public_buckets=st.booleans(),
)
RULES = st.builds(
    access.BucketAccess,
    acl=ACLS,
    ownership=st.sampled_from(list(Ownership)),
    public_access=BLOCKS,
)


def _bucket(rules: access.BucketAccess) -> objects.BucketRecord:
    return objects.BucketRecord(
        name="b", owner="ada", created_ns=1, region="us-east-1", access=rules
    )


def _object(owner: str, acl: access.Acl | None) -> objects.ObjectRecord:
    return objects.ObjectRecord(
        bucket="b", key="k", size_bytes=0, etag="", modified_ns=1, owner=owner, acl=acl
    )


def _model(
    rules: access.BucketAccess,
    owner: str,
    acl: access.Acl | None,
    caller: access.Caller,
    asked: Permission,
) -> bool:
    if rules.ownership is Ownership.BUCKET_OWNER_ENFORCED:
        return caller == "ada"
    ignored = rules.public_access is not None and rules.public_access.ignore_public_acls
    allowed: set[Permission] = set()
    if caller == owner:
        allowed |= {Permission.READ_ACP, Permission.WRITE_ACP}
    for permission, user_id, group in (
        ((Permission.FULL_CONTROL, owner, None),) if (acl is None) else acl
    ):
        is_meant = {
            None: caller is not None and caller == user_id,
            Group.ALL_USERS: not ignored,
            Group.AUTHENTICATED_USERS: not ignored and caller is not None,
        }[group]
        if is_meant:
            allowed |= set(Permission) if permission is Permission.FULL_CONTROL else {permission}
    return asked in allowed


@hypothesis.given(RULES, CALLERS, ASKED)
def test_of_a_bucket(rules: access.BucketAccess, caller: access.Caller, asked: Permission) -> None:
    found = permissions.on_bucket(_bucket(rules), caller, asked)
    assert found is _model(rules, "ada", rules.acl, caller, asked)


@hypothesis.given(RULES, st.sampled_from(USERS), ACLS, CALLERS, ASKED)
def test_of_an_object(
    rules: access.BucketAccess,
    owner: str,
    acl: access.Acl | None,
    caller: access.Caller,
    asked: Permission,
) -> None:
    bucket, record = _bucket(rules), _object(owner, acl)
    assert permissions.on_object(bucket, record, caller, asked) is _model(
        rules, owner, acl, caller, asked
    )
    assert permissions.owner_of(bucket, record) == (owner if rules.has_acls else "ada")


@hypothesis.given(st.lists(GRANTS, max_size=6).map(tuple), CALLERS, ASKED)
def test_an_acl_as_it_is_kept_allows_what_it_did(
    acl: access.Acl, caller: access.Caller, asked: Permission
) -> None:
    kept = access.normal(acl, owner="ada")
    rules = access.BucketAccess()
    assert _model(rules, "ada", kept, caller, asked) is _model(rules, "ada", acl, caller, asked)
    assert set(access.grants_of(kept, owner="ada")) == set(acl)
