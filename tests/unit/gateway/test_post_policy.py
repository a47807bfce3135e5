"""Policies of forms: what is let through, and what the refusal says."""

from __future__ import annotations

import base64
import json
import typing

import pytest

from couchestor_domain import units
from couchestor_gateway.protocol import post_policy, s3_error

EXPIRES = "2026-11-29T12:00:00Z"
EXPIRES_NS = 1_795_953_600 * units.NS_PER_SECOND
FIELDS = {
    "bucket": "books",
    "key": "user/a.txt",
    "policy": "...",
    "awsaccesskeyid": "AK",
    "signature": "...",
}
COVERING: list[object] = [{"bucket": "books"}, ["starts-with", "$key", "user/"]]


def _encoded(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def _policy(*conditions: object) -> post_policy.Policy:
    return post_policy.parse(_encoded({"expiration": EXPIRES, "conditions": list(conditions)}))


def _refusal(*conditions: object, now_ns: int = 0, **fields: str) -> str:
    """What the policy refuses the fields for; empty if it lets them through."""
    given = {**FIELDS, **{name.replace("_", "-"): value for name, value in fields.items()}}
    try:
        _policy(*COVERING, *conditions).check(given, now_ns=now_ns)
    except s3_error.S3Error as refusal:
        code, message = refusal.code, refusal.message
    else:
        return ""
    assert code == "AccessDenied"
    start, _, reason = message.partition(": ")
    assert start == "Invalid according to Policy"
    return reason


def test_a_policy_ends_at_its_expiration() -> None:
    policy = _policy(*COVERING)
    assert policy.expires_ns == EXPIRES_NS
    policy.check(FIELDS, now_ns=EXPIRES_NS - 1)
    assert _refusal(now_ns=EXPIRES_NS) == "Policy expired."


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"x-amz-meta-a": "one"}, "one", True),
        ({"x-amz-meta-a": "one"}, "One", False),
        ({"x-amz-meta-a": "one"}, "one ", False),
        ({"x-amz-meta-a": ""}, "", True),
        ({"X-Amz-Meta-A": "one"}, "one", True),
        (["eq", "$x-amz-meta-a", "one"], "one", True),
        (["EQ", "$X-AMZ-META-A", "one"], "one", True),
        (["eq", "$x-amz-meta-a", ""], "barclamp", False),
        (["starts-with", "$x-amz-meta-a", "on"], "one", True),
        (["StArTs-WiTh", "$x-amz-meta-a", "on"], "One", False),
        (["starts-with", "$x-amz-meta-a", ""], "anything", True),
        (["starts-with", "$x-amz-meta-a", "a"], "a,b", True),
    ],
)
def test_conditions_on_one_field(condition: object, value: str, holds: bool) -> None:
    refusal = _refusal(condition, x_amz_meta_a=value)
    assert refusal == ("" if holds else f"Policy Condition failed: {json.dumps(condition)}")


@pytest.mark.parametrize(
    ("content_type", "holds"),
    [
        ("image/png", True),
        ("image/png,image/gif", True),
        ("image/png, image/gif", True),
        ("image/png,text/html", False),
        ("text/html,image/png", False),
        ("image/png,", False),
        ("", False),
    ],
)
def test_a_content_type_with_commas_is_a_list(content_type: str, holds: bool) -> None:
    condition = ["starts-with", "$Content-Type", "image/"]
    assert (_refusal(condition, content_type=content_type) == "") is holds
    exact = ["eq", "$Content-Type", content_type]
    assert _refusal(exact, content_type=content_type) == ""


def test_a_field_that_is_missing_is_empty() -> None:
    assert _refusal(["starts-with", "$x-amz-meta-a", ""]) == ""
    assert "Condition failed" in _refusal(["starts-with", "$x-amz-meta-a", "b"])


def test_every_field_needs_a_condition() -> None:
    assert _refusal(x_amz_meta_a="1", submit="go") == "Extra input fields: submit, x-amz-meta-a"
    assert _refusal(x_amz_algorithm="AWS4-HMAC-SHA256") == "Extra input fields: x-amz-algorithm"
    assert _refusal(x_amz_signature="00", x_ignore_me="1", x_amz_checksum_crc32="AAAAAA==") == ""
    with pytest.raises(s3_error.S3Error, match="Extra input fields: bucket, key"):
        _policy().check(FIELDS, now_ns=0)
    with pytest.raises(s3_error.S3Error, match=r'failed: \{"bucket": "other"\}'):
        _policy({"bucket": "other"}, {"key": "user/a.txt"}).check(FIELDS, now_ns=0)


def test_all_conditions_on_a_field_must_hold() -> None:
    assert "Condition failed" in _refusal(["starts-with", "$key", "user/b"])


@pytest.mark.parametrize(
    ("ranges", "low", "high"),
    [
        ([], 0, None),
        ([["content-length-range", 1, 9]], 1, 9),
        ([["Content-Length-Range", "1", "9"]], 1, 9),
        ([["content-length-range", 0, 0]], 0, 0),
        ([["content-length-range", 1, 9], ["content-length-range", 0, 5]], 1, 5),
    ],
)
def test_ranges_of_the_size(ranges: list[object], low: int, high: int | None) -> None:
    policy = _policy(*COVERING, *ranges)
    assert (policy.size_bytes_min, policy.size_bytes_max) == (low, high)


@pytest.mark.parametrize(
    "condition",
    [
        ["content-length-range"],
        ["content-length-range", 0],
        ["content-length-range", -1, 0],
        ["content-length-range", 0, 1, 2],
        ["content-length-range", 2, 1],
        ["content-length-range", 0.5, 1],
        ["content-length-range", True, 1],
        ["content-length-range", "a", "b"],
        ["content-length-range", 0, 10**30],
        {},
        {"a": "1", "b": "2"},
        {"a": 1},
        {"": "a"},
        [],
        ["eq", "$a"],
        ["eq", "a", "b"],
        ["eq", "$", "b"],
        ["eq", "$a", 1],
        ["eq", 1, "b"],
        ["ends-with", "$a", "b"],
        [1, "$a", "b"],
        "eq",
        None,
    ],
)
def test_conditions_that_cannot_be(condition: object) -> None:
    with pytest.raises(s3_error.S3Error, match="Condition") as failure:
        _policy(condition)
    assert (failure.value.code, failure.value.status) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 20_000,
        {},
        {"conditions": []},
        {"expiration": EXPIRES},
        {"EXPIRATION": EXPIRES, "conditions": []},
        {"expiration": EXPIRES, "CONDITIONS": []},
        {"expiration": EXPIRES, "conditions": [], "version": 1},
        {"expiration": EXPIRES, "conditions": {}},
        {"expiration": EXPIRES, "conditions": None},
        {"expiration": EXPIRES, "conditions": [{"a": ""}] * 257},
        *(
            {"expiration": moment, "conditions": []}
            for moment in (
                "",
                "soon",
                1795953600,
                "2026-11-29",
                "2026-11-29T12:00:00",
                "2026-11-29 12:00:00+00:00",
                "2026-13-29T12:00:00Z",
            )
        ),
        r'{"expiration": "\x", "conditions": []}',
    ],
)
def test_documents_that_are_no_policy(document: object) -> None:
    with pytest.raises(s3_error.S3Error, match="Invalid Policy: ") as failure:
        post_policy.parse(_encoded(document))
    assert failure.value.code == "InvalidPolicyDocument"


@pytest.mark.parametrize("encoded", ["%", "YQ", "ü", base64.b64encode(b"\xff").decode()])
def test_policies_that_are_not_encoded(encoded: str) -> None:
    with pytest.raises(s3_error.S3Error, match="Base64"):
        post_policy.parse(encoded)


def test_a_policy_may_be_broken_into_lines() -> None:
    encoded = _encoded({"expiration": "2026-11-29T12:00:00.000Z", "conditions": COVERING})
    lines = "\r\n".join(encoded[start : start + 64] for start in range(0, len(encoded), 64))
    assert post_policy.parse(lines).expires_ns == EXPIRES_NS


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"\$foo", "$foo"),
        (r"\\$foo", r"\$foo"),
        (r"\\\$foo", r"\$foo"),
        (r"a\vb", "a\vb"),
        (r"\u00fc\n\/", "ü\n/"),
        (r"\\v", r"\v"),
    ],
)
def test_escapes(written: str, value: str) -> None:
    text = f'{{"expiration": "{EXPIRES}", "conditions": [["eq", "$key", "{written}"]]}}'
    (condition,) = post_policy.parse(_encoded(text)).conditions
    assert condition.value == value


def test_names_of_conditions_have_no_case() -> None:
    given: typing.Any = _policy({"bUcKeT": "books"}, ["StArTs-WiTh", "$KeY", "user/"])
    given.check(FIELDS, now_ns=0)
