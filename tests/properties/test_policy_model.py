"""Policies against a plain reading of them, and whatever may be sent as one."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_questions import ARN, BUCKET, USERS, KnownFacts

from couchestor_gateway.protocol import s3_error
from couchestor_gateway.protocol.policy import bucket_policy, wildcards

_patterns = st.text(alphabet="ab*?é", max_size=9)
_texts = st.text(alphabet="abé", max_size=12)


@functools.cache
def _matches(pattern: str, text: str) -> bool:
    """By trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return _matches(pattern[1:], text) or (bool(text) and _matches(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and _matches(pattern[1:], text[1:])


@settings(max_examples=500, deadline=None)
@given(patterns=st.lists(_patterns, max_size=5), text=_texts)
def test_wildcards(patterns: list[str], text: str) -> None:
    read = [wildcards.pieces(pattern) for pattern in patterns]
    expected = [_matches(pattern, text) for pattern in patterns]
    assert wildcards.Patterns(read).match(text) is any(expected)
    automaton = wildcards.Automaton(read)
    states = automaton.follow(text)
    assert [bool(states & end) for end in automaton.ends] == expected


_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket")
_values = st.sampled_from(["a", "b", "ab", "a*", "*"])
_conditions = st.dictionaries(
    st.sampled_from(
        [
            *("StringEquals", "StringNotEquals", "StringLike", "StringNotLike"),
            *("StringEqualsIfExists", "ForAllValues:StringLike", "ForAnyValue:StringNotLike"),
        ]
    ),
    st.dictionaries(st.sampled_from(["aws:x", "aws:y"]), st.lists(_values, max_size=2), max_size=2),
    max_size=2,
)


def _one_of(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.sampled_from([name, f"Not{name}"]), values).map(lambda pair: dict([pair]))


_statements = st.builds(
    lambda *parts: {name: value for part in parts for name, value in part.items()},
    st.sampled_from([{"Effect": "Allow"}, {"Effect": "Deny"}]),
    _one_of(
        "Principal", st.sampled_from([{"AWS": "*"}, {"AWS": ["ada"]}, {"AWS": ["ada", "bob"]}])
    ),
    _one_of(
        "Action",
        st.lists(st.sampled_from([*_ACTIONS, "s3:*", "s3:*Object"]), min_size=1, max_size=3),
    ),
    _one_of(
        "Resource",
        st.lists(
            st.sampled_from([ARN, f"{ARN}/*", f"{ARN}/a*", f"{ARN}*", f"{ARN}/${{aws:x}}"]),
            min_size=1,
            max_size=2,
        ),
    ),
    st.builds(lambda found: {"Condition": found}, _conditions),
)  # fmt: skip


def _read(document: bytes) -> bucket_policy.BucketPolicy | s3_error.S3Error:
    """The policy, or its refusal."""
    try:
        return bucket_policy.parse(document, bucket=BUCKET, is_user=USERS.__contains__)
    except s3_error.S3Error as refusal:
        return refusal


def _filled(pattern: str, facts: Mapping[str, Sequence[str]]) -> str | None:
    if "${aws:x}" not in pattern:
        return pattern
    values = facts.get("aws:x", ())
    # The values here hold no wildcards that the pattern would have to escape.
    return pattern.replace("${aws:x}", values[0]) if len(values) == 1 else None


def _holds(operator: str, wanted: Sequence[str], found: Sequence[str] | None) -> bool:
    name = operator.removesuffix("IfExists").rpartition(":")[2]
    negated, like = "Not" in name, "Like" in name
    if not found:
        if operator.endswith("IfExists") or operator.startswith("ForAll"):
            return True
        return negated and not operator.startswith("ForAny")
    fits = [
        any(_matches(each, value) if like else each == value for each in wanted) is not negated
        for value in found
    ]
    if operator.startswith("ForAll"):
        return all(fits)
    return any(fits) if operator.startswith("ForAny") or not negated else all(fits)


def _speaks(
    statement: Mapping[str, Any],
    caller: str | None,
    action: str,
    resource: str,
    facts: Mapping[str, Sequence[str]],
) -> bool:
    named = statement.get("Principal") or statement["NotPrincipal"]
    is_named = named["AWS"] == "*" or caller in named["AWS"]
    done = statement.get("Action") or statement["NotAction"]
    where = statement.get("Resource") or statement["NotResource"]
    filled = [_filled(each, facts) for each in where]
    return (
        is_named is ("Principal" in statement)
        and any(_matches(each, action) for each in done) is ("Action" in statement)
        and any(each is not None and _matches(each, f"arn:aws:s3:::{resource}") for each in filled)
        is ("Resource" in statement)
        and all(
            _holds(operator, wanted, facts.get(key))
            for operator, keys in statement["Condition"].items()
            for key, wanted in keys.items()
        )
    )


@settings(max_examples=600, deadline=None)
@given(
    statements=st.lists(_statements, min_size=1, max_size=4),
    caller=st.sampled_from(["ada", "bob", "eve", None]),
    action=st.sampled_from(_ACTIONS),
    key=st.sampled_from(["", "/a", "/ab", "/b/a"]),
    facts=st.dictionaries(
        st.sampled_from(["aws:x", "aws:y"]),
        st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2),
        max_size=2,
    ),
)
def test_decisions(
    statements: list[dict[str, Any]],
    caller: str | None,
    action: str,
    key: str,
    facts: dict[str, list[str]],
) -> None:
    content = json.dumps({"Version": "2012-10-17", "Statement": statements}).encode()
    policy = _read(content)
    if isinstance(policy, s3_error.S3Error):
        assert policy.message in (
            "Allow with NotPrincipal is not allowed.",
            "Action does not apply to any resource(s) in statement",
        )
        return
    resource = f"{BUCKET}{key}"
    effects = {
        each["Effect"] for each in statements if _speaks(each, caller, action, resource, facts)
    }
    expected = "denied" if "Deny" in effects else "allowed" if "Allow" in effects else "open"
    decided = policy.decide(caller, action, resource, KnownFacts(facts))
    assert decided.value == expected


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _values
    | st.sampled_from(["*", "Allow", "Deny", "ada", "s3:GetObject", ARN, f"{ARN}/*", "2012-10-17"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                *("Version", "Id", "Statement", "Sid", "Effect", "Principal", "NotPrincipal"),
                *("Action", "NotAction", "Resource", "NotResource", "Condition", "AWS"),
                *("StringEquals", "Null", "IpAddress", "ArnLike", "aws:SourceIp", "s3:prefix"),
            ]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip
_shaped = st.fixed_dictionaries(
    {
        "Version": st.sampled_from(["2012-10-17", "2008-10-17"]),
        "Statement": st.fixed_dictionaries(
            {
                "Effect": _json | st.just("Allow"),
                "Principal": _json | st.just("*"),
                "Action": _json | st.just("s3:GetObject"),
                "Resource": _json | st.just(f"{ARN}/*"),
                "Condition": _json,
            }
        ),
    }
)


@settings(max_examples=400, deadline=None)
@given(document=(_json | _shaped).map(lambda value: json.dumps(value).encode()) | st.binary())
def test_whatever_is_sent_is_a_policy_or_refused_as_one(document: bytes) -> None:
    policy = _read(document)
    if isinstance(policy, s3_error.S3Error):
        assert (policy.code, policy.status) == ("MalformedPolicy", 400)
        return
    decided = policy.decide("ada", "s3:GetObject", f"{BUCKET}/k", KnownFacts({"aws:x": "a"}))
    assert decided in bucket_policy.Decision
