"""Policies that are taken and policies that are refused, with S3's sentence."""

from __future__ import annotations

import json
import time
from typing import Any

import policy_questions
import pytest
from policy_questions import ARN, ask, document, policy, statement

from couchestor_gateway.protocol import s3_error
from couchestor_gateway.protocol.policy import actions, bucket_policy, policy_json
from couchestor_gateway.protocol.policy.bucket_policy import Decision


def _refusal(content: bytes) -> str:
    with pytest.raises(s3_error.S3Error) as failure:
        bucket_policy.parse(
            content, bucket=policy_questions.BUCKET, is_user=policy_questions.USERS.__contains__
        )
    assert (failure.value.code, failure.value.status) == ("MalformedPolicy", 400)
    return failure.value.message


FIRST_BYTE = "Policies must be valid JSON and the first byte must be '{'"
NO_JSON = "This policy contains invalid Json"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", FIRST_BYTE),
        (b" {}", FIRST_BYTE),
        (b"[]", FIRST_BYTE),
        (b"\xef\xbb\xbf{}", FIRST_BYTE),
        (b"{", NO_JSON),
        (b"{}x", NO_JSON),
        (b'{"Id": "\xff"}', NO_JSON),
        (b'{"Id": NaN}', NO_JSON),
        (b'{"Id": "a", "Id": "a"}', NO_JSON),
        (b'{"Statement": ' + b"[" * 20_000, NO_JSON),
        (
            b'{"Id": "' + b"x" * 20_471 + b'"}',
            "Normalized policy document exceeds the maximum allowed size of 20480 bytes",
        ),
        (b"{}", "Missing required field Statement"),
        (b'{"statement": []}', "Unknown field statement"),
        (b'{"Version": "2020-01-01"}', "The policy must contain a valid version string"),
        (b'{"Version": ["2012-10-17"]}', "The policy must contain a valid version string"),
        (b'{"Id": null, "Statement": []}', "Invalid policy syntax."),
        (b'{"Statement": []}', "Could not parse the policy: Statement is empty!"),
        (b'{"Statement": "x"}', "Invalid policy syntax."),
        (b'{"Statement": [5]}', "Invalid policy syntax."),
    ],
)
def test_what_is_no_policy(content: bytes, sentence: str) -> None:
    assert _refusal(content) == sentence


def test_the_longest_policy_is_taken() -> None:
    content = document(statement(), Id="")
    content = document(statement(), Id="x" * (policy_json.DOCUMENT_BYTES_MAX - len(content)))
    assert len(content) == policy_json.DOCUMENT_BYTES_MAX
    bucket_policy.parse(content, bucket=policy_questions.BUCKET)


PRINCIPAL = "Invalid principal in policy"
ACTION = "Policy has invalid action"
RESOURCE = "Policy has invalid resource"
APPLIES = "Action does not apply to any resource(s) in statement"
CONDITION_KEY = "Policy has an invalid condition key"
CONDITION_IP = "Invalid IP address in Conditions"
CONDITION_APPLIES = "Conditions do not apply to combination of actions and resources in statement"
SYNTAX = "Invalid policy syntax."
CASES: list[tuple[dict[str, Any], str]] = [
    ({"condition": {}}, "Unknown field condition"),
    ({"Sid": ["x"]}, SYNTAX),
    ({"Effect": None}, "Missing required field Effect"),
    ({"Effect": "allow"}, "Invalid effect: allow"),
    ({"Principal": None}, "Missing required field Principal"),
    ({"Principal": "ada"}, SYNTAX),
    ({"Principal": {}}, PRINCIPAL),
    ({"Principal": ["*"]}, PRINCIPAL),
    ({"Principal": {"AWS": []}}, PRINCIPAL),
    ({"Principal": {"AWS": ""}}, PRINCIPAL),
    ({"Principal": {"AWS": "nobody-here"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:iam:::user/nobody-here"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:iam::1:user/*"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:iam::1"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:iam:::root"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:iam::1:rooted"}}, PRINCIPAL),
    ({"Principal": {"AWS": "12345678901"}}, PRINCIPAL),
    ({"Principal": {"AWS": "arn:aws:s3:::books"}}, PRINCIPAL),
    ({"Principal": {"CanonicalUser": "*"}}, PRINCIPAL),
    ({"Principal": {"Service": "*"}}, PRINCIPAL),
    ({"Principal": {"aws": "ada"}}, PRINCIPAL),
    ({"NotPrincipal": "*"}, SYNTAX),
    (
        {"Principal": None, "NotPrincipal": {"AWS": "ada"}},
        "Allow with NotPrincipal is not allowed.",
    ),
    ({"Action": None}, "Missing required field Action"),
    ({"Action": []}, ACTION),
    ({"Action": "s3:GetObjects"}, ACTION),
    ({"Action": "s3:Fetch*"}, ACTION),
    ({"Action": "ec2:RunInstances"}, ACTION),
    ({"Action": ["s3:GetObject", "GetObject"]}, ACTION),
    ({"Action": 5, "NotAction": 5}, SYNTAX),
    ({"Action": {"a": "b"}}, SYNTAX),
    ({"Resource": None}, "Missing required field Resource"),
    ({"Resource": []}, RESOURCE),
    ({"Resource": "books/*"}, RESOURCE),
    ({"Resource": "arn:aws:s3:::"}, RESOURCE),
    ({"Resource": "arn:aws:s3:::other/*"}, RESOURCE),
    ({"Resource": "arn:aws:s3:::book/*"}, RESOURCE),
    ({"Resource": [f"{ARN}/*", "arn:aws:s3:::other"]}, RESOURCE),
    ({"Effect": "Deny", "Resource": ARN}, APPLIES),
    ({"Effect": "Deny", "Action": ["s3:GetObject", "s3:ListBucket"]}, APPLIES),
    ({"Effect": "Deny", "Action": "s3:ListAllMyBuckets", "Resource": f"{ARN}*"}, APPLIES),
    ({"Condition": []}, SYNTAX),
    ({"Condition": {"StringEquals": "x"}}, SYNTAX),
    ({"Condition": {"StringEquals": {"aws:Referer": None}}}, SYNTAX),
    ({"Condition": {"stringequals": {}}}, "Invalid Condition type : stringequals"),
    ({"Condition": {"NullIfExist": {"aws:x": "true"}}}, "Invalid Condition type : NullIfExist"),
    (
        {"Condition": {"ForEachValue:StringLike": {"aws:x": "y"}}},
        "Invalid Condition type : ForEachValue:StringLike",
    ),
    ({"Condition": {"StringEquals": {"s3:unheard-of": "x"}}}, CONDITION_KEY),
    ({"Condition": {"StringEquals": {"referer": "x"}}}, CONDITION_KEY),
    ({"Condition": {"StringEquals": {"s3:prefix": "x"}}}, CONDITION_APPLIES),
    (
        {
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": f"{ARN}*",
            "Condition": {"StringEquals": {"s3:prefix": "x"}},
        },
        CONDITION_APPLIES,
    ),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.300"}}}, CONDITION_IP),
    *(
        (
            {"Condition": {kind: {"aws:x": value}}},
            f"Invalid value in Conditions for operator {kind}",
        )
        for kind, value in (
            ("NumericEquals", "ten"),
            ("NumericLessThan", "1e9"),
            ("DateLessThan", "tomorrow"),
            ("DateEquals", "2026-01-01T00:00:00"),
            ("Bool", "yes"),
            ("Null", "maybe"),
            ("Null", []),
            ("ArnLike", "arn:aws"),
            ("BinaryEquals", "?"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("members", "sentence"), CASES)
def test_what_is_no_statement(members: dict[str, Any], sentence: str) -> None:
    assert _refusal(document(statement(**members))) == sentence
    # Also where another statement is in order.
    assert _refusal(document(statement(), statement(**members))) == sentence


@pytest.mark.parametrize(
    "members",
    [
        {"Sid": "Allow everybody, twice", "Principal": {"AWS": ["ada", "*"]}},
        {"Principal": {"AWS": "arn:aws:iam::ada:root"}},
        {"Principal": {"AWS": "arn:aws:iam:::user/ada", "CanonicalUser": ["bob"]}},
        {"Principal": {"AWS": "arn:aws:iam::s3tenant1:root"}},
        {"Principal": {"AWS": ["123456789012", "arn:aws:iam::123456789012:root"]}},
        {"Principal": {"AWS": "arn:aws:sts::123456789012:assumed-role/r/s"}},
        {"Principal": {"Service": "logging.s3.amazonaws.com"}},
        {"Effect": "Deny", "Principal": None, "NotPrincipal": {"AWS": ["ada"]}},
        {"Action": "*"},
        {"Action": "S3:getobject"},
        {"Action": ["s3:Get*", "s3:?utObject"]},
        {"Action": None, "NotAction": "s3:DeleteBucket"},
        {"Resource": None, "NotResource": ARN},
        {"Resource": ["*", "arn:aws:s3:::*", "arn:aws:s3:::b?oks/*", f"{ARN}/${{aws:username}}"]},
        {"Resource": "arn:aws:s3:::${aws:username}/x"},
        # It allows nothing, which shows at its first use.
        {"Resource": ARN},
        {"Condition": {}},
        {"Condition": {"StringEquals": {}}},
        {"Condition": {"Bool": {"aws:SecureTransport": True, "aws:unheard-of": "false"}}},
        {"Condition": {"NumericLessThan": {"aws:EpochTime": 2e9}}},
        {"Action": "s3:*", "Resource": f"{ARN}*", "Condition": {"Null": {"s3:prefix": True}}},
        {"Condition": {"StringLikeIfExists": {"AWS:referer": ["http://x/*"]}}},
        {"Condition": {"ForAllValues:StringLike": {"aws:TagKeys": []}}},
        {"Condition": {"StringEquals": {"s3:ExistingObjectTag/a": "b"}}},
    ],
)
def test_what_is_a_statement(members: dict[str, Any]) -> None:
    policy(statement(**members))
    policy(statement(), statement(**members), Id="two of them")


def test_a_policy_may_have_one_statement_and_no_version() -> None:
    content = json.dumps({"Statement": statement(Resource=f"{ARN}/${{aws:username}}")}).encode()
    asked = bucket_policy.parse(content, bucket=policy_questions.BUCKET)
    # Before 2012-10-17 there were no variables.
    assert ask(asked, key="${aws:username}") is Decision.ALLOWED
    assert ask(asked, key="bob", aws__username="bob") is Decision.OPEN


def test_users_who_left_spoil_nothing() -> None:
    content = document(statement(Principal={"AWS": "left"}))
    kept = bucket_policy.parse(content, bucket=policy_questions.BUCKET)
    assert ask(kept, "left") is Decision.ALLOWED


def test_every_action_is_named_once() -> None:
    assert len({action.lower() for action in actions.KINDS}) == len(actions.KINDS) > 150
    (every,) = actions.named(["s3:*"])
    assert every == frozenset(actions.KINDS)
    assert actions.named(["s3:getobject", "s3:*Object?cl", "s3:x*"]) == [
        {"s3:GetObject"},
        {"s3:GetObjectAcl", "s3:PutObjectAcl"},
        set(),
    ]


def _filled(make: Any) -> bytes:
    """The longest policy that ``make`` gives for a number."""
    low, high = 0, policy_json.DOCUMENT_BYTES_MAX
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(make(middle)) <= 20_480 else (low, middle)
    content: bytes = make(low)
    return content


HOSTILE = {
    "stars": lambda n: document(statement(Resource=f"{ARN}/" + "*a" * n)),
    "questions": lambda n: document(statement(Resource=[f"{ARN}/*?a"] * n)),
    "one long resource": lambda n: document(statement(Resource=f"{ARN}/" + "?" * n)),
    "letters": lambda n: document(
        statement(Resource=f"{ARN}/?" + "".join(map(chr, range(0x4E00, 0x4E00 + n))))
    ),
    "actions": lambda n: document(statement(Action=["s3:*a*e*?*t*"] * n)),
    "statements": lambda n: document(
        *[statement(Effect="Deny", Condition={"StringLike": {"aws:Referer": "*a?b"}})] * n
    ),
    "conditions": lambda n: document(
        statement(Condition={"StringLike": {"aws:Referer": ["*a*a*a*b"] * n}})
    ),
    "variables": lambda n: document(
        statement(Resource=f"{ARN}/*" + "${aws:Referer}" * n),
    ),
    "variables in patterns": lambda n: document(
        statement(Condition={"StringLike": {"aws:Referer": ["*${aws:Referer}?b"] * n}}),
    ),
    "variables in statements": lambda n: document(
        *[statement(Effect="Deny", Condition={"StringLike": {"aws:Referer": "*${aws:u}?b"}})] * n
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_policy_written_to_be_slow_is_not(name: str) -> None:
    content = _filled(HOSTILE[name])
    started = time.process_time()
    asked = bucket_policy.parse(content, bucket=policy_questions.BUCKET)
    parsed = time.process_time()
    ask(asked, key="a" * 1024, aws__Referer="a" * 4096, aws__u="a")
    # On an idle machine 0.1 s at most; trying everything would take years.
    assert parsed - started < 0.7
    assert time.process_time() - parsed < 0.7
