"""Lifecycle configurations as XML: what is taken, given back, and refused with S3's sentence."""

from __future__ import annotations

import pytest

from couchestor_domain import lifecycle
from couchestor_gateway.protocol import lifecycle_document, s3_error
from couchestor_gateway.protocol.lifecycle_document import parse, write

DAYS = "<Expiration><Days>3</Days></Expiration>"
ALL = "<Filter/>"
PREFIX = lifecycle.FilterForm.PREFIX


def _document(*rules: str) -> bytes:
    body = "".join(f"<Rule>{rule}</Rule>" for rule in rules)
    return f"<LifecycleConfiguration>{body}</LifecycleConfiguration>".encode()


def _one(actions: str = DAYS, asked: str = ALL, *, more: str = "<ID>r</ID>") -> bytes:
    return _document(f"{more}{asked}<Status>Enabled</Status>{actions}")


def _rule(document: bytes) -> lifecycle.Rule:
    (rule,) = parse(document).rules
    assert parse(write(lifecycle.Configuration(rules=(rule,)))).rules == (rule,)
    return rule


def _refusal(document: bytes) -> tuple[str, str]:
    with pytest.raises(s3_error.S3Error) as failure:
        parse(document)
    assert failure.value.status == 400
    return failure.value.code, failure.value.message


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("<Filter/>", lifecycle.Filter()),
        ("<Filter><Prefix>a/</Prefix></Filter>", lifecycle.Filter(prefix="a/")),
        ("<Filter><Prefix/></Filter>", lifecycle.Filter(prefix="")),
        ("<Prefix>a &amp; b</Prefix>", lifecycle.Filter(form=PREFIX, prefix="a & b")),
        ("<Prefix/>", lifecycle.Filter(form=PREFIX, prefix="")),
        (
            "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>",
            lifecycle.Filter(tags={"k": "v"}),
        ),
        (
            "<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>",
            lifecycle.Filter(larger_than_bytes=0),
        ),
        (
            "<Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value/></Tag>"
            "<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"
            "<ObjectSizeLessThan>7</ObjectSizeLessThan></And></Filter>",
            lifecycle.Filter(
                form=lifecycle.FilterForm.AND,
                prefix="a",
                tags={"k": ""},
                larger_than_bytes=5,
                smaller_than_bytes=7,
            ),
        ),
        # Several side by side mean all of them.
        (
            "<Filter><Prefix>days1/</Prefix><Tag><Key>t</Key><Value>s</Value></Tag>"
            "<And><Prefix>days1</Prefix><Tag><Key>h</Key><Value>f</Value></Tag></And></Filter>",
            lifecycle.Filter(
                form=lifecycle.FilterForm.AND, prefix="days1/", tags={"h": "f", "t": "s"}
            ),
        ),
        (
            "<Filter><Prefix>a</Prefix><Prefix>ab</Prefix></Filter>",
            lifecycle.Filter(prefix="ab"),
        ),
    ],
)  # fmt: skip
def test_filters(asked: str, expected: lifecycle.Filter) -> None:
    assert _rule(_one(asked=asked)).filter == expected


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (DAYS, {"days": 3}),
        (
            "<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>",
            {"date_ns": 1_893_456_000 * 10**9},
        ),
        ("<Expiration><Date>2030-01-01</Date></Expiration>", {"date_ns": 1_893_456_000 * 10**9}),
        (
            "<Expiration><Date>2030-01-01T01:00:00+01:00</Date></Expiration>",
            {"date_ns": 1_893_456_000 * 10**9},
        ),
        (
            "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
            {"removes_lone_markers": True},
        ),
        (
            "<Expiration><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>",
            {"removes_lone_markers": False},
        ),
        (
            "<NoncurrentVersionExpiration><NoncurrentDays>4</NoncurrentDays>"
            "<NewerNoncurrentVersions>100</NewerNoncurrentVersions></NoncurrentVersionExpiration>",
            {"noncurrent_days": 4, "newer_noncurrent_count": 100},
        ),
        (
            "<AbortIncompleteMultipartUpload><DaysAfterInitiation>9</DaysAfterInitiation>"
            f"</AbortIncompleteMultipartUpload>{DAYS}",
            {"abort_days": 9, "days": 3},
        ),
    ],
)
def test_actions(actions: str, expected: dict[str, object]) -> None:
    rule = _rule(_one(actions))
    for name in ("days", "date_ns", "removes_lone_markers", "noncurrent_days", "abort_days"):
        assert getattr(rule, name) == expected.get(name)
    assert rule.newer_noncurrent_count == expected.get("newer_noncurrent_count")


def test_rules_without_an_id_get_one_each_and_the_same_again() -> None:
    text = f"{ALL}<Status>Disabled</Status>{DAYS}"
    first, second = parse(_document(text, text)).rules
    assert first.rule_id
    assert second.rule_id
    assert first.rule_id != second.rule_id
    assert not first.is_enabled
    assert parse(_document(text, text)).rules == (first, second)


MALFORMED = (
    "MalformedXML",
    "The XML you provided was not well-formed or did not validate against our published schema",
)
_ABORT = (
    "<AbortIncompleteMultipartUpload><DaysAfterInitiation>9</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload>"
)
_MARKER = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
_TAG = "<Tag><Key>k</Key><Value>v</Value></Tag>"


@pytest.mark.parametrize(
    ("document", "refusal"),
    [
        (b"", MALFORMED),
        (b"<LifecycleConfiguration/>", MALFORMED),
        (_document(*["x"] * 1001), MALFORMED),
        (b"<LifecycleConfiguration><Rules/></LifecycleConfiguration>", MALFORMED),
        (_document(f"<ID>r</ID>{ALL}{DAYS}"), MALFORMED),
        (_document(f"<ID>r</ID>{ALL}<Status>enabled</Status>{DAYS}"), MALFORMED),
        (_document(f"<ID>r</ID><Status>Enabled</Status>{DAYS}"), MALFORMED),
        (_one(DAYS + DAYS), MALFORMED),
        (_one("<Expiration/>"), MALFORMED),
        (_one("<Expiration><Days>x</Days></Expiration>"), MALFORMED),
        (_one("<Expiration><Days>1.5</Days></Expiration>"), MALFORMED),
        (_one("<Expiration><Days>1</Days><Date>2030-01-01</Date></Expiration>"), MALFORMED),
        (_one("<Expiration><Date>20300101</Date></Expiration>"), MALFORMED),
        (_one("<Expiration><Date>2030-01-01T00:00:00</Date></Expiration>"), MALFORMED),
        (_one("<NoncurrentVersionExpiration><NewerNoncurrentVersions>3"
              "</NewerNoncurrentVersions></NoncurrentVersionExpiration>"), MALFORMED),
        (_one(asked="<Filter><And><Prefix>a</Prefix></And></Filter>"), MALFORMED),
        (_one(asked="<Filter><Tag><Key>k</Key></Tag></Filter>"), MALFORMED),
        (_one(asked="<Filter><Size>1</Size></Filter>"), MALFORMED),
        (_one("<Archive/>"), ("MalformedXML", "Unexpected element Archive.")),
        (_one(""), ("InvalidRequest", "At least one action needs to be specified in a rule.")),
        (
            _one(asked="<Prefix>a</Prefix><Filter/>"),
            ("InvalidRequest", "Base level prefix cannot be used in Lifecycle V2, prefixes are"
             " only supported in the Filter."),
        ),
        (
            _one(more=f"<ID>{'x' * 256}</ID>"),
            ("InvalidArgument", "ID length should not exceed allowed limit of 255"),
        ),
        (
            _document(*[f"<ID>r</ID>{ALL}<Status>Enabled</Status>{DAYS}"] * 2),
            ("InvalidArgument",
             "Rule ID must be unique. Found same ID for more than one rule"),
        ),
        (
            _one("<Expiration><Days>0</Days></Expiration>"),
            ("InvalidArgument",
             "'Days' for Expiration action must be a positive integer"),
        ),
        (
            _one("<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>"),
            ("InvalidArgument", "'Date' must be at midnight GMT"),
        ),
        (
            _one("<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>"
                 "<NewerNoncurrentVersions>101</NewerNoncurrentVersions>"
                 "</NoncurrentVersionExpiration>"),
            ("InvalidArgument", "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action"
             " must not be greater than 100"),
        ),
        (
            _one(_MARKER, f"<Filter>{_TAG}</Filter>"),
            ("InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags."),
        ),
        (
            _one(_ABORT, f"<Filter>{_TAG}</Filter>"),
            ("InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Tags."),
        ),
        (
            _one(_ABORT, "<Filter><ObjectSizeLessThan>7</ObjectSizeLessThan></Filter>"),
            ("InvalidRequest",
             "AbortIncompleteMultipartUpload cannot be specified with Object Size."),
        ),
        (
            _one(asked=f"<Filter><And>{_TAG}{_TAG}</And></Filter>"),
            ("InvalidRequest", "Duplicate Tag Keys are not allowed."),
        ),
        (
            _one(asked="<Filter><And><ObjectSizeGreaterThan>7</ObjectSizeGreaterThan>"
                 "<ObjectSizeLessThan>7</ObjectSizeLessThan></And></Filter>"),
            ("InvalidRequest", "'ObjectSizeLessThan' has to be a value greater than"
             " 'ObjectSizeGreaterThan'."),
        ),
        (
            _one(asked=f"<Filter><Prefix>{'x' * 1025}</Prefix></Filter>"),
            ("InvalidRequest", "The maximum size of a prefix is 1024."),
        ),
        (
            _one(asked="<Filter><Prefix>a</Prefix><Prefix>b</Prefix></Filter>"),
            ("InvalidRequest", "No key begins with both prefixes of the rule's filter."),
        ),
        (
            _one("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"),
            ("InvalidStorageClass",
             "There is no other storage class here that objects could be moved to."),
        ),
        (
            _one("<NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays>"
                 "<StorageClass>GLACIER</StorageClass></NoncurrentVersionTransition>"),
            ("InvalidStorageClass",
             "There is no other storage class here that objects could be moved to."),
        ),
        (_one("<Transition><Days>1</Days></Transition>"), MALFORMED),
    ],
)  # fmt: skip
def test_refusals(document: bytes, refusal: tuple[str, str]) -> None:
    assert _refusal(document) == refusal


def test_as_many_rules_as_s3_takes_and_no_longer_document() -> None:
    rules = [f"<ID>r{i}</ID>{ALL}<Status>Enabled</Status>{DAYS}" for i in range(1000)]
    assert len(parse(_document(*rules)).rules) == lifecycle_document.RULES_MAX
    padding = b" " * lifecycle_document.BYTES_MAX
    assert _refusal(_document(*rules) + padding) == MALFORMED
