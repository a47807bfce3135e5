"""Policies that are kept read."""

from __future__ import annotations

import logging

import pytest
from policy_questions import ARN, BUCKET, ask, document, statement

from couchestor_domain import access, objects
from couchestor_gateway.edge import read_policies
from couchestor_gateway.protocol.policy.bucket_policy import Decision


def test_a_policy_is_read_once() -> None:
    kept = read_policies.ReadPolicies()
    text = document(statement()).decode()
    first = kept.of(BUCKET, text)
    assert kept.of(BUCKET, text) is first
    # Equal, but another text: a record that was read anew.
    assert kept.of(BUCKET, "".join(list(text))) is first
    assert ask(first) is Decision.ALLOWED
    assert kept.of(BUCKET, document(statement(Sid="other")).decode()) is not first


def test_what_was_asked_last_stays() -> None:
    texts = [document(statement(Sid=f"{number}")).decode() for number in range(4)]
    kept = read_policies.ReadPolicies(characters_max=3 * len(texts[0]))
    first, second, *_ = [kept.of(BUCKET, text) for text in texts[:3]]
    assert kept.of(BUCKET, texts[0]) is first
    kept.of(BUCKET, texts[3])
    assert kept.of(BUCKET, texts[0]) is first
    assert kept.of(BUCKET, texts[1]) is not second


def test_the_last_one_stays_however_long_it_is() -> None:
    kept = read_policies.ReadPolicies(characters_max=1)
    text = document(statement()).decode()
    assert kept.of(BUCKET, text) is kept.of(BUCKET, text)


def test_what_cannot_be_read_any_more_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="couchestor.gateway")
    kept = read_policies.ReadPolicies()
    closed = kept.of(BUCKET, document(statement(Action="s3:GetWhatIsNoMore")).decode())
    for caller in ("ada", None):
        assert ask(closed, caller) is Decision.DENIED
        assert ask(closed, caller, key=None, action="s3:ListBucket") is Decision.DENIED
    assert "Policy has invalid action" in caplog.text


def test_of_a_bucket() -> None:
    text = document(statement(Resource=f"{ARN}/*")).decode()

    def record(policy: str | None) -> objects.BucketRecord:
        return objects.BucketRecord(
            name=BUCKET,
            owner="ada",
            created_ns=1,
            region="us-east-1",
            access=access.BucketAccess(policy=policy),
        )

    assert read_policies.of(record(None)) is None
    found = read_policies.of(record(text))
    assert found is not None
    assert read_policies.of(record(text)) is found
