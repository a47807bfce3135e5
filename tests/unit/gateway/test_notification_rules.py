"""Notification configurations, and the messages that their targets get."""

from __future__ import annotations

import json
import re

import botocore.session
import pytest

from couchestor_domain import notices
from couchestor_gateway.protocol import event_message, notification_rules, s3_error

_TARGETS = frozenset({"hook", "other"})
_ARN = "arn:couchestor:webhook:::hook"


def _document(*rules: str) -> bytes:
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    inside = "".join(rules)
    return f"<NotificationConfiguration {namespace}>{inside}</NotificationConfiguration>".encode()


def _queue(
    *events: str, arn: str = _ARN, rule_id: str = "", filters: tuple[tuple[str, str], ...] = ()
) -> str:
    told = f"<Id>{rule_id}</Id>" if rule_id else ""
    told += f"<Queue>{arn}</Queue>" + "".join(f"<Event>{event}</Event>" for event in events)
    if filters:
        rules = "".join(
            f"<FilterRule><Name>{name}</Name><Value>{value}</Value></FilterRule>"
            for name, value in filters
        )
        told += f"<Filter><S3Key>{rules}</S3Key></Filter>"
    return f"<QueueConfiguration>{told}</QueueConfiguration>"


def _parsed(*rules: str) -> tuple[notification_rules.Rule, ...]:
    return notification_rules.parse(_document(*rules), targets=_TARGETS)


def test_a_configuration_is_told_as_it_was_put() -> None:
    rules = _parsed(
        _queue("s3:ObjectCreated:*", rule_id="one &amp; only", filters=(("Prefix", "a/ b"),)),
        _queue("s3:ObjectRemoved:Delete", "s3:ObjectAcl:Put", filters=(("suffix", ".jpg"),)),
    )
    assert notification_rules.parse(notification_rules.write(rules)) == rules
    assert rules[0].rule_id == "one & only"
    assert rules[0].filters == (("Prefix", "a/ b"),)
    assert rules[1].rule_id
    assert notification_rules.parse(notification_rules.write(())) == ()


def test_a_rule_is_of_its_events_and_its_keys() -> None:
    rules = notification_rules.Rules(
        _parsed(
            _queue("s3:ObjectCreated:*", rule_id="c", filters=(("prefix", "a/"),)),
            _queue(
                "s3:ObjectCreated:Put",
                "s3:ObjectRemoved:*",
                rule_id="p",
                arn="arn:aws:sqs:us-east-1:123456789012:other",
                filters=(("suffix", ".jpg"), ("prefix", "a")),
            ),
        )
    )
    created, put = notices.Interest("hook", "c"), notices.Interest("other", "p")
    assert rules.interests(notices.CREATED_PUT, "a/b.jpg") == (created, put)
    assert rules.interests(notices.CREATED_COPY, "a/b.jpg") == (created,)
    assert rules.interests(notices.MARKED, "a.jpg") == (put,)
    assert rules.interests(notices.CREATED_PUT, "b/a/b.jpg") == ()
    assert rules.interests(notices.TAGS_PUT, "a/b.jpg") == ()


@pytest.mark.parametrize(
    ("kind", "element", "arn", "is_good"),
    [
        ("QueueConfiguration", "Queue", _ARN, True),
        ("TopicConfiguration", "Topic", _ARN, True),
        ("CloudFunctionConfiguration", "CloudFunction", _ARN, True),
        ("QueueConfiguration", "Queue", "arn:aws:sqs:us-east-1:1:hook", True),
        ("TopicConfiguration", "Topic", "arn:aws:sns:us-east-1:1:hook", True),
        (
            "CloudFunctionConfiguration",
            "CloudFunction",
            "arn:aws:lambda:us-east-1:1:function:hook",
            True,
        ),
        ("QueueConfiguration", "Queue", "arn:aws:sns:us-east-1:1:hook", False),
        ("QueueConfiguration", "Queue", "arn:couchestor:webhook:::a:hook", False),
        ("QueueConfiguration", "Queue", "hook", False),
        ("QueueConfiguration", "Queue", "arn:aws:sqs:us-east-1:1:", False),
    ],
)
def test_what_may_stand_for_a_target(kind: str, element: str, arn: str, is_good: bool) -> None:
    rule = f"<{kind}><{element}>{arn}</{element}><Event>s3:ObjectCreated:*</Event></{kind}>"
    if is_good:
        (found,) = _parsed(rule)
        assert (found.kind, found.arn, found.target) == (kind, arn, "hook")
        return
    with pytest.raises(s3_error.S3Error, match="not well formed") as failure:
        _parsed(rule)
    assert failure.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("rules", "code", "sentence"),
    [
        (("<Other/>",), "MalformedXML", ""),
        (("<QueueConfiguration/>",), "MalformedXML", ""),
        ((_queue(),), "MalformedXML", ""),
        (("<EventBridgeConfiguration/>",), "NotImplemented", "EventBridge"),
        (
            (_queue("s3:ObjectCreated:*", arn="arn:couchestor:webhook:::nobody"),),
            "InvalidArgument",
            "Unable to validate the following destination configurations",
        ),
        ((_queue("s3:ObjectLost:*"),), "InvalidArgument", "not supported for notifications"),
        ((_queue("s3:Replication:*"),), "InvalidArgument", "not supported for notifications"),
        ((_queue("ObjectCreated:Put"),), "InvalidArgument", "not supported for notifications"),
        (
            (_queue("s3:ObjectCreated:*", rule_id="x"), _queue("s3:ObjectAcl:Put", rule_id="x")),
            "InvalidArgument",
            "IDs must be unique",
        ),
        ((_queue("s3:ObjectCreated:*", rule_id="i" * 256),), "InvalidArgument", "255"),
        (
            (_queue("s3:ObjectCreated:*", filters=(("infix", "a"),)),),
            "InvalidArgument",
            "either prefix or suffix",
        ),
        (
            (_queue("s3:ObjectCreated:*", filters=(("prefix", "a"), ("Prefix", "b"))),),
            "InvalidArgument",
            "Cannot specify more than one prefix rule in a filter.",
        ),
        (
            (_queue("s3:ObjectCreated:*", filters=(("prefix", "ü" * 513),)),),
            "InvalidArgument",
            "cannot exceed 1024 bytes",
        ),
        (tuple(_queue("s3:ObjectCreated:*") for _ in range(101)), "InvalidArgument", "at most 100"),
    ],
)
def test_what_no_configuration_can_say(rules: tuple[str, ...], code: str, sentence: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        _parsed(*rules)
    assert failure.value.code == code
    assert sentence in failure.value.message


def test_events_are_those_that_the_sdk_knows() -> None:
    model = botocore.session.get_session().get_service_model("s3")
    known = set(model.shape_for("Event").enum)
    assert {f"s3:{event}" for event in notices.EVENTS} <= known


_CAUSE = notices.Cause(
    requester="ada",
    source_ip="10.0.0.1",
    request_id="00000000000000AB",
    host_id="host",
    region="us-east-1",
    bucket_owner="bob",
)


def _notice(sequence: int, **more: object) -> notices.Notice:
    fields: dict[str, object] = {
        "target": "hook",
        "configuration_id": "c",
        "event": notices.CREATED_PUT,
        "time_ns": 1_000_000,
        "cause": _CAUSE,
        "bucket": "b",
        "key": "a b/ü+x",
        **more,
    }
    return notices.Notice(sequence=sequence, **fields)  # type: ignore[arg-type]


def test_a_message_is_as_s3_writes_it() -> None:
    notice = _notice(10, size_bytes=3, etag="e", version_id="v")
    assert json.loads(event_message.write(notice)) == {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "us-east-1",
                "eventTime": "1970-01-01T00:00:00.001Z",
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "ada"},
                "requestParameters": {"sourceIPAddress": "10.0.0.1"},
                "responseElements": {
                    "x-amz-request-id": "00000000000000AB",
                    "x-amz-id-2": "host",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "c",
                    "bucket": {
                        "name": "b",
                        "ownerIdentity": {"principalId": "bob"},
                        "arn": "arn:aws:s3:::b",
                    },
                    "object": {
                        "key": "a+b/%C3%BC%2Bx",
                        "size": 3,
                        "eTag": "e",
                        "versionId": "v",
                        "sequencer": "000000000000000A",
                    },
                },
            }
        ]
    }


def test_what_is_gone_has_no_size_and_sequencers_sort_as_texts() -> None:
    texts = [event_message.write(_notice(sequence)).decode() for sequence in (9, 10, 255, 2**40)]
    found = [re.findall(r'"sequencer":"(\w+)"', text)[0] for text in texts]
    assert found == sorted(found)
    assert not [text for text in texts if '"size"' in text or '"eTag"' in text]
