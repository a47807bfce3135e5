"""What policies say of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from policy_questions import ARN, ask, policy, statement

from couchestor_gateway.protocol.policy import evaluation, principals
from couchestor_gateway.protocol.policy.bucket_policy import Decision

ALLOWED, DENIED, OPEN = Decision.ALLOWED, Decision.DENIED, Decision.OPEN


def test_a_denial_overrules() -> None:
    asked = policy(statement(), statement(Effect="Deny", Principal={"AWS": "bob"}))
    assert [ask(asked, caller) for caller in ("ada", "bob", None)] == [ALLOWED, DENIED, ALLOWED]
    assert ask(asked, action="s3:PutObject") is OPEN
    assert ask(asked, key=None, action="s3:ListBucket") is OPEN


@pytest.mark.parametrize(
    ("principal", "allowed"),
    [
        ("*", ["ada", "bob", None]),
        ({"AWS": "*"}, ["ada", "bob", None]),
        ({"AWS": ["ada"]}, ["ada"]),
        ({"AWS": "arn:aws:iam:::user/ada"}, ["ada"]),
        ({"AWS": "arn:aws:iam::ada:root"}, ["ada"]),
        ({"CanonicalUser": ["ada", "bob"]}, ["ada", "bob"]),
        ({"AWS": "arn:aws:iam::123456789012:user/ada"}, []),
        ({"AWS": "arn:aws:iam::ada:role/ada"}, []),
        ({"Service": "ada"}, []),
    ],
)
def test_principals(principal: Any, allowed: Sequence[str | None]) -> None:
    asked = policy(statement(Principal=principal))
    callers = ("ada", "bob", None)
    assert [caller for caller in callers if ask(asked, caller) is ALLOWED] == allowed
    others = policy(statement(Effect="Deny", Principal=None, NotPrincipal=principal))
    assert [caller for caller in callers if ask(others, caller) is OPEN] == allowed


def test_a_user_is_told_by_the_arn_that_names_one() -> None:
    asked = policy(statement(Principal={"AWS": principals.arn_of("ada")}))
    assert ask(asked, "ada") is ALLOWED


@pytest.mark.parametrize(
    ("resource", "bucket", "keys"),
    [
        (ARN, True, []),
        (f"{ARN}/*", False, ["a", "a/b", "logs/", "A"]),
        (f"{ARN}/a*", False, ["a", "a/b"]),
        (f"{ARN}/?", False, ["a", "A"]),
        (f"{ARN}*", True, ["a", "a/b", "logs/", "A"]),
        ("*", True, ["a", "a/b", "logs/", "A"]),
        ("arn:aws:s3:::*/logs/", False, ["logs/"]),
        (f"{ARN}/*/b", False, ["a/b"]),
        (f"{ARN}/${{*}}", False, []),
    ],
)
def test_resources(resource: str, bucket: bool, keys: list[str]) -> None:
    asked = policy(statement(Action="*", Resource=resource))
    every = ("a", "a/b", "logs/", "A")
    assert (ask(asked, key=None, action="s3:ListBucket") is ALLOWED) is bucket
    assert [key for key in every if ask(asked, key=key) is ALLOWED] == keys
    but = policy(statement(Action="*", Resource=None, NotResource=resource))
    assert [key for key in every if ask(but, key=key) is not ALLOWED] == keys


def test_variables_and_signs_that_stand_for_themselves() -> None:
    asked = policy(statement(Resource=[f"{ARN}/home/${{AWS:Username}}/*", f"{ARN}/${{*}}${{$}}?"]))
    assert ask(asked, key="home/bob/x", aws__username="bob") is ALLOWED
    assert ask(asked, key="home/ada/x", aws__username="bob") is OPEN
    # What fills a variable in is no pattern.
    assert ask(asked, key="home/ada/x", aws__username="*") is OPEN
    assert ask(asked, key="home/*/x", aws__username="*") is ALLOWED
    assert ask(asked, None, key="home//x") is OPEN
    assert ask(asked, key="home/${AWS:Username}/x") is OPEN
    assert ask(asked, key="*$x") is ALLOWED
    assert ask(asked, key="a$x") is OPEN
    with_default = policy(statement(Resource=f"{ARN}/${{aws:PrincipalTag/team, 'all'}}/*"))
    assert ask(with_default, key="all/x") is ALLOWED
    assert ask(with_default, key="red/x", facts={"aws:PrincipalTag/team": "red"}) is ALLOWED
    assert ask(with_default, key="all/x", facts={"aws:PrincipalTag/team": "red"}) is OPEN


def test_not_action() -> None:
    asked = policy(statement(Action=None, NotAction=["s3:Delete*", "s3:PutObject"]))
    answers = [
        ask(asked, action=f"s3:{name}") for name in ("GetObject", "DeleteObject", "PutObject")
    ]
    assert answers == [ALLOWED, OPEN, OPEN]


Facts = dict[str, str | Sequence[str]]


@pytest.mark.parametrize(
    ("operator", "wanted", "holds", "fails"),
    [
        ("StringEquals", "a", ["a"], ["A", "b", "", None]),
        ("StringEquals", ["a*", "b"], ["b", "a*"], ["ab"]),
        ("StringNotEquals", ["a", "b"], ["c", None], ["a", "b"]),
        ("StringEqualsIgnoreCase", "Straße", ["STRASSE", "straße"], ["strase", None]),
        ("StringNotEqualsIgnoreCase", "A", ["b", None], ["a", "A"]),
        ("StringLike", ["a*b?", "x"], ["abc", "a--b-", "x"], ["ab", "a", None]),
        ("StringNotLike", "a*", ["b", None], ["a", "ab"]),
        ("StringLikeIfExists", "a*", ["ab", None], ["b"]),
        ("StringEqualsIfExists", [], [None], ["a", ""]),
        ("NumericEquals", "10", ["10", "10.0", "+10"], ["11", "ten", "", None]),
        ("NumericNotEquals", ["1", "2"], ["3", "x", None], ["1", "2.0"]),
        ("NumericLessThan", "10", ["9", "-9", "9.99"], ["10", "11", None]),
        ("NumericLessThanEquals", "10", ["10", "9"], ["10.1"]),
        ("NumericGreaterThan", "10", ["11"], ["10", "9"]),
        ("NumericGreaterThanEquals", 10, ["10", "11"], ["9"]),
        ("DateEquals", "2026-01-02T00:00:00Z", ["2026-01-02", "1767312000"], ["2026-01-03", None]),
        ("DateNotEquals", "2026-01-02", ["2026-01-03", None], ["2026-01-02T00:00:00Z"]),
        ("DateLessThan", "2026-01-02", ["2026-01-01T23:59:59.999Z"], ["2026-01-02", "2027-01-01"]),
        ("DateLessThanEquals", "2026-01-02", ["2026-01-02"], ["2026-01-03"]),
        ("DateGreaterThan", "2026-01-02T01:00:00+01:00", ["2026-01-02T00:00:01Z"], ["2026-01-02"]),
        ("DateGreaterThanEquals", "2026-01-02", ["2026-01-02"], ["2026-01-01"]),
        ("Bool", "true", ["true", "TRUE"], ["false", "1", None]),
        ("Bool", False, ["false"], ["true", None]),
        ("BoolIfExists", "false", ["false", None], ["true"]),
        ("BinaryEquals", "YQ==", ["YQ=="], ["YR==x", "Yg==", None]),
        ("IpAddress", ["10.1.0.0/16", "::1"], ["10.1.2.3", "::1"], ["10.2.0.1", "::2", "x", None]),
        ("NotIpAddress", "10.1.2.3/16", ["10.2.0.1", None], ["10.1.255.255"]),
        ("ArnLike", "arn:aws:iam::*:user/a*", ["arn:aws:iam::1:user/ab"], ["x", None]),
        ("ArnLike", "arn:aws:*:::a", ["arn:aws:iam:::a"], ["arn:aws:s3:::b:a"]),
        ("ArnEquals", "arn:aws:s3:::b?", ["arn:aws:s3:::bb"], ["arn:aws:s3:::b:b"]),
        ("ArnNotEquals", "arn:aws:s3:::b", ["arn:aws:s3:::c", None], ["arn:aws:s3:::b"]),
        ("ArnNotLike", "arn:aws:s3:::b*", ["arn:aws:s3:::c"], ["arn:aws:s3:::b:c"]),
        ("Null", "true", [None, []], ["a", ""]),
        ("Null", False, ["a", ["a", "b"]], [None]),
        ("ForAllValues:StringEquals", ["a", "b"], [None, [], ["a"], ["a", "b"]], [["a", "c"]]),
        ("ForAllValues:StringNotEquals", ["a"], [None, ["b", "c"]], [["a", "b"], ["a"]]),
        ("ForAnyValue:StringLike", ["a*"], [["x", "ab"]], [None, [], ["x"]]),
        ("ForAnyValue:StringNotLike", ["a*"], [["x", "ab"]], [None, ["ab"]]),
        ("ForAnyValue:StringLikeIfExists", ["a*"], [["ab"], None], [["x"]]),
        ("StringEquals", "a", [["b", "a"]], [["b", "c"]]),
        ("StringNotEquals", "a", [["b", "c"]], [["b", "a"]]),
    ],
)  # fmt: skip
def test_operators(
    operator: str, wanted: object, holds: list[str | None], fails: list[str | None]
) -> None:
    asked = policy(statement(Condition={operator: {"aws:some": wanted}}))
    for values, decision in ((holds, ALLOWED), (fails, OPEN)):
        for value in values:
            facts: Facts = {} if value is None else {"aws:some": value}
            assert ask(asked, facts=facts) is decision, (operator, wanted, value)


def test_all_conditions_have_to_hold() -> None:
    asked = policy(
        statement(
            Condition={
                "StringEquals": {"aws:one": "1", "aws:two": ["2", "two"]},
                "Bool": {"aws:SecureTransport": True},
            }
        )
    )
    facts: Facts = {"aws:one": "1", "aws:two": "two", "aws:SecureTransport": "true"}
    assert ask(asked, facts=facts) is ALLOWED
    for name in facts:
        assert ask(asked, facts={each: facts[each] for each in facts if each != name}) is OPEN


def test_a_variable_in_a_condition() -> None:
    asked = policy(
        statement(
            Condition={
                "StringLike": {"aws:Referer": "https://${aws:username}.example.com/*"},
                "ArnLike": {"aws:PrincipalArn": "arn:aws:iam:::user/${aws:username}"},
            }
        )
    )
    facts: Facts = {"aws:username": "bob", "aws:PrincipalArn": "arn:aws:iam:::user/bob"}
    assert ask(asked, facts=facts, aws__Referer="https://bob.example.com/x") is ALLOWED
    assert ask(asked, facts=facts, aws__Referer="https://ada.example.com/x") is OPEN
    assert ask(asked, aws__Referer="https://${aws:username}.example.com/") is OPEN


def test_what_a_key_says_of_one_action_it_does_not_say_of_another() -> None:
    """Anybody may put ``prefix`` into the query of any request."""
    listed = policy(
        statement(
            Action="s3:*", Resource=f"{ARN}*", Condition={"StringEquals": {"s3:prefix": "open/"}}
        )
    )
    assert ask(listed, key=None, action="s3:ListBucket", s3__prefix="open/") is ALLOWED
    assert ask(listed, key="secret", s3__prefix="open/") is OPEN
    tagged = policy(statement(Condition={"StringEquals": {"s3:ExistingObjectTag/Open": "yes"}}))
    assert ask(tagged, facts={"s3:ExistingObjectTag/Open": "yes"}) is ALLOWED
    assert ask(tagged, facts={"s3:existingobjecttag/Open": "yes"}) is ALLOWED
    assert ask(tagged, facts={"s3:ExistingObjectTag/open": "yes"}) is OPEN


def test_what_is_no_key_fills_nothing_in() -> None:
    """Else any header of a request would."""
    asked = policy(statement(Resource=f"{ARN}/${{s3:x-amz-meta-user}}/${{referer}}"))
    assert ask(asked, key="a/b", facts={"s3:x-amz-meta-user": "a", "referer": "b"}) is OPEN


def test_what_goes_beyond_the_bounds_is_denied() -> None:
    asked = policy(statement(Condition={"StringLikeIfExists": {"aws:Referer": "*"}}))
    longest = "x" * evaluation.VALUE_CHARACTERS_MAX
    assert ask(asked, aws__Referer=longest) is ALLOWED
    assert ask(asked, aws__Referer=longest + "x") is DENIED
    assert ask(policy(statement()), aws__Referer=longest + "x") is ALLOWED
    many = evaluation.EXPANDED_CHARACTERS_MAX // evaluation.VALUE_CHARACTERS_MAX
    for count, decision in ((many, OPEN), (many + 1, DENIED)):
        asked = policy(statement(Resource=f"{ARN}/" + "${aws:Referer}" * count))
        assert ask(asked, aws__Referer=longest) is decision


@pytest.mark.parametrize(
    ("members", "public"),
    [
        ({}, True),
        ({"Principal": {"AWS": ["ada", "*"]}}, True),
        ({"Principal": {"AWS": "ada"}}, False),
        ({"Principal": {"AWS": "arn:aws:iam::s3tenant1:root"}}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": {"StringLike": {"aws:Referer": "https://a.example.com/*"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/32", "0.0.0.0/1"]}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "2000::/3"}}}, True),
        ({"Condition": {"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/32"}}}, True),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}, False),
        ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-*"}}}, True),
        ({"Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
        ({"Condition": {"StringEquals": {"aws:PrincipalArn": "${aws:Referer}"}}}, True),
        ({"Condition": {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam:::user/ada"}}}, False),
        ({"Condition": {"ForAllValues:StringEquals": {"aws:PrincipalArn": "x"}}}, True),
    ],
)  # fmt: skip
def test_what_is_public(members: dict[str, Any], public: bool) -> None:
    assert policy(statement(**members)).is_public is public
    assert policy(statement(Principal={"AWS": "bob"}), statement(**members)).is_public is public
