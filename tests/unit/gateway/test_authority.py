"""Policy, lists, ownership and blocks together, against their order written out."""

from __future__ import annotations

import json
from typing import Any, cast

import hypothesis
from hypothesis import strategies as st
from policy_questions import ARN, BUCKET

from couchestor_domain import access, objects
from couchestor_domain.access import Grant, Group, Ownership, Permission
from couchestor_gateway.edge import authority, request_facts, request_head
from couchestor_gateway.protocol import operation_needs, permissions

OPERATIONS = [
    name
    for name, need in operation_needs.NEEDS.items()
    if need.place is not operation_needs.Place.SERVICE
]
CALLERS = st.sampled_from(["ada", "bob", "eve", None])
ACLS = st.sampled_from(
    [
        None,
        (Grant(Permission.READ, group=Group.ALL_USERS), Grant(Permission.FULL_CONTROL, "ada")),
        (Grant(Permission.FULL_CONTROL, "bob"),),
    ]
)
STATEMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Principal": st.sampled_from(["*", {"AWS": "bob"}, {"AWS": "ada"}]),
            "Action": st.sampled_from(["s3:*", "s3:Get*", "s3:PutObject", "s3:*Policy"]),
            "Resource": st.just([ARN, f"{ARN}/*"]),
        }
    ),
    max_size=3,
)


class _Head:
    """All that is asked of one where policies have no conditions."""

    def __init__(self, caller: access.Caller) -> None:
        self.caller = caller
        self.member = None


def _names(statement: dict[str, Any], caller: access.Caller, action: str) -> bool:
    named, actions = statement["Principal"], statement["Action"]
    is_meant = {
        "s3:*": True,
        "s3:Get*": action.startswith("s3:Get"),
        "s3:PutObject": action == "s3:PutObject",
        "s3:*Policy": action.endswith("Policy"),
    }[actions]
    return is_meant and (named == "*" or named["AWS"] == caller)


def _by_lists(
    bucket: objects.BucketRecord,
    record: objects.ObjectRecord | None,
    caller: access.Caller,
    need: operation_needs.Need,
) -> bool:
    place = need.place.value
    if place in ("own bucket", "own object"):
        return caller == "ada"
    if place == "object":
        assert need.permission is not None
        return record is None or permissions.on_object(bucket, record, caller, need.permission)
    return need.permission is None or permissions.on_bucket(bucket, caller, need.permission)


@hypothesis.settings(max_examples=600, deadline=None)
@hypothesis.given(
    operation=st.sampled_from(OPERATIONS),
    caller=CALLERS,
    listed=st.none() | STATEMENTS,
    acls=st.tuples(ACLS, ACLS),
    owner=st.sampled_from(["ada", "bob"]),
    enforced=st.booleans(),
    restricts=st.booleans(),
    known=st.booleans(),
)
def test_who_may(
    operation: str,
    caller: access.Caller,
    listed: list[dict[str, Any]] | None,
    acls: tuple[access.Acl | None, access.Acl | None],
    owner: str,
    enforced: bool,
    restricts: bool,
    known: bool,
) -> None:
    document = json.dumps({"Statement": listed}) if listed else None
    bucket = objects.BucketRecord(
        name=BUCKET,
        owner="ada",
        created_ns=1,
        region="us-east-1",
        access=access.BucketAccess(
            acl=acls[0],
            ownership=Ownership.BUCKET_OWNER_ENFORCED if enforced else Ownership.UNSET,
            public_access=access.PublicAccessBlock(restrict_public_buckets=restricts),
            policy=document,
        ),
    )
    need = operation_needs.NEEDS[operation]
    record = None
    if known and need.place is operation_needs.Place.OBJECT:
        record = objects.ObjectRecord(
            bucket=BUCKET, key="k", size_bytes=0, etag="", modified_ns=1, owner=owner, acl=acls[1]
        )
    head = cast(request_head.RequestHead, _Head(caller))
    facts = request_facts.RequestFacts(head, bucket)
    found = authority.may(head, bucket, need, key="k", facts=facts, record=record)

    statements = listed or []
    is_public = any(each["Effect"] == "Allow" and each["Principal"] == "*" for each in statements)
    lists_say = _by_lists(bucket, record, caller, need)
    is_the_owners = record is None or enforced or record.owner == "ada"
    expected = not (is_public and restricts and caller != "ada")
    for action in need.actions:
        if caller == "ada" and action.endswith("BucketPolicy"):
            continue
        effects = {each["Effect"] for each in statements if _names(each, caller, action)}
        allowed = ("Allow" in effects and is_the_owners) or lists_say
        expected = expected and "Deny" not in effects and allowed
    assert found is expected


def test_an_upload_is_gone_on_with_by_who_began_it() -> None:
    bucket = objects.BucketRecord(name=BUCKET, owner="ada", created_ns=1, region="us-east-1")
    upload = objects.UploadRecord(
        upload_id="u", bucket=BUCKET, key="k", initiated_ns=1, initiator="bob"
    )
    need = operation_needs.NEEDS["ListParts"]
    for caller, may in (("ada", True), ("bob", True), ("eve", False), (None, False)):
        assert authority.by_lists(bucket, caller, need, upload=upload) is may
