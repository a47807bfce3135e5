"""Users of tenants: their policies, the bucket's, its lists, and whose it is, in every combination.

What is expected is written as AWS says it, not as the code asks it: see ``_expected``.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, cast

import pytest
from policy_questions import ARN, BUCKET, KnownFacts

from couchestor_domain import access, objects
from couchestor_domain.access import Grant, Permission
from couchestor_gateway.edge import authority, read_policies, request_facts, request_head
from couchestor_gateway.ports import credentials
from couchestor_gateway.protocol import operation_needs
from couchestor_gateway.protocol.policy import bucket_policy

TENANT, OTHER = "111122223333", "444455556666"
FACTS = cast(request_facts.RequestFacts, KnownFacts({}))
OWN = {
    "nothing": (),
    "allow": ("Allow",),
    "deny": ("Deny",),
    "both": ("Allow", "Deny"),
    "other action": ("Allow other",),
}
PRINCIPALS: dict[str, Any] = {
    "user": {"AWS": f"arn:aws:iam::{TENANT}:user/bob"},
    "another user": {"AWS": f"arn:aws:iam::{TENANT}:user/eve"},
    "tenant": {"AWS": f"arn:aws:iam::{TENANT}:root"},
    "tenant by id": {"AWS": TENANT},
    "everybody": "*",
}
SAID = [None, *itertools.product(["Allow", "Deny"], PRINCIPALS)]


class _Head:
    """All that is asked of one where policies have no conditions."""

    def __init__(self, member: credentials.Member | None) -> None:
        self.caller: access.Caller = TENANT
        self.member = member
        self.bucket = BUCKET


def _document(effect: str) -> str:
    action = "s3:DeleteObject" if effect == "Allow other" else "s3:GetObject"
    statement = {"Effect": effect.split()[0], "Action": action, "Resource": f"{ARN}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


def _member(own: str) -> credentials.Member:
    return credentials.Member(
        name="bob",
        principal=f"{TENANT}:user/bob",
        policies=tuple(_document(effect) for effect in OWN[own]),
    )


def _bucket(
    owner: str, said: tuple[str, str] | None, acl: access.Acl | None = None
) -> objects.BucketRecord:
    policy = None
    if said is not None:
        effect, who = said
        statement = {
            "Effect": effect,
            "Principal": PRINCIPALS[who],
            "Action": "s3:GetObject",
            "Resource": f"{ARN}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    return objects.BucketRecord(
        name=BUCKET,
        owner=owner,
        created_ns=1,
        region="r",
        access=access.BucketAccess(policy=policy, acl=acl),
    )


def _record(owner: str, acl: access.Acl | None) -> objects.ObjectRecord:
    return objects.ObjectRecord(
        bucket=BUCKET, key="k", size_bytes=1, etag="e", modified_ns=1, owner=owner, acl=acl
    )


def _expected(own: str, said: tuple[str, str] | None, *, same: bool, granted: bool) -> bool:
    denies = "Deny" in OWN[own] or (
        said is not None and said[0] == "Deny" and said[1] != "another user"
    )
    identity = own == "allow"
    names_user = said in (("Allow", "user"), ("Allow", "everybody"))
    resource = names_user or said in (("Allow", "tenant"), ("Allow", "tenant by id"))
    if denies:
        return False
    if same:
        return identity or names_user
    return identity and (resource or granted)


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("same", [True, False], ids=["own bucket", "another's"])
@pytest.mark.parametrize("granted", [True, False], ids=["granted by ACL", "private"])
def test_who_may(own: str, same: bool, granted: bool) -> None:
    owner = TENANT if same else OTHER
    acl = (Grant(Permission.READ, TENANT),) if granted else None
    head = cast(request_head.RequestHead, _Head(_member(own)))
    need = operation_needs.NEEDS["GetObject"]
    for said in SAID:
        found = authority.may(
            head, _bucket(owner, said), need, key="k", facts=FACTS, record=_record(owner, acl)
        )
        assert found == _expected(own, said, same=same, granted=granted), said


@pytest.mark.parametrize("said", SAID)
def test_the_root_of_a_tenant_is_the_tenant(said: tuple[str, str] | None) -> None:
    head = cast(request_head.RequestHead, _Head(None))
    found = authority.may(
        head,
        _bucket(TENANT, said),
        operation_needs.NEEDS["GetObject"],
        key="k",
        facts=FACTS,
        record=_record(TENANT, None),
    )
    users_alone = ("user", "another user")
    assert found == (said is None or said[0] == "Allow" or said[1] in users_alone)


def test_what_is_others_in_the_own_bucket_is_not_the_tenants_to_give() -> None:
    need = operation_needs.NEEDS["GetObject"]
    for own, acl, may in (
        ("nothing", None, False),
        ("allow", None, False),
        ("allow", (Grant(Permission.READ, TENANT),), True),
    ):
        head = cast(request_head.RequestHead, _Head(_member(own)))
        bucket = _bucket(TENANT, ("Allow", "user"))
        record = _record(OTHER, acl)
        assert authority.may(head, bucket, need, key="k", facts=FACTS, record=record) is may


def test_no_user_but_the_root_gets_the_policy_back() -> None:
    bucket = objects.BucketRecord(
        name=BUCKET,
        owner=TENANT,
        created_ns=1,
        region="r",
        access=access.BucketAccess(
            policy=json.dumps(
                {
                    "Statement": {
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [ARN, f"{ARN}/*"],
                    }
                }
            )
        ),
    )
    everything = json.dumps({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})
    member = credentials.Member(name="bob", principal=f"{TENANT}:user/bob", policies=(everything,))
    need = operation_needs.NEEDS["DeleteBucketPolicy"]
    for each, may in ((None, True), (member, False)):
        head = cast(request_head.RequestHead, _Head(each))
        assert authority.may(head, bucket, need, key="", facts=FACTS) is may


@pytest.mark.parametrize(
    ("statement", "lists", "creates"),
    [
        ({"Action": "s3:*", "Resource": "*"}, True, True),
        ({"Action": "s3:*", "Resource": "arn:aws:s3:::*"}, True, True),
        ({"Action": "s3:ListAllMyBuckets", "Resource": "*"}, True, False),
        ({"Action": "s3:CreateBucket", "Resource": ARN}, False, True),
        ({"Action": "s3:CreateBucket", "Resource": "arn:aws:s3:::other-*"}, False, False),
    ],
)
def test_what_is_in_no_bucket(statement: dict[str, str], lists: bool, creates: bool) -> None:
    document = json.dumps({"Statement": {"Effect": "Allow", **statement}})
    member = credentials.Member(name="b", principal=f"{TENANT}:user/b", policies=(document,))
    head = _Head(member)
    may = authority.may_use_service
    asked = cast(request_head.RequestHead, head)
    assert may(asked, operation_needs.NEEDS["CreateBucket"], FACTS) is creates
    head.bucket = ""
    assert may(asked, operation_needs.NEEDS["ListBuckets"], FACTS) is lists
    assert may(
        cast(request_head.RequestHead, _Head(None)), operation_needs.NEEDS["ListBuckets"], FACTS
    )


def test_what_cannot_be_read_any_more_denies() -> None:
    member = credentials.Member(name="b", principal="t:user/b", policies=("{}",))
    said = read_policies.decide(member, "s3:GetObject", "b/k", KnownFacts({}))
    assert said is bucket_policy.Decision.DENIED
