"""Lifecycle configurations as XML: read within bounds, refused as S3 refuses them, written.

Nothing here is moved between storage classes, because there is one: a rule that asks for it is
refused by name, not accepted and forgotten.

Source: Amazon S3 API Reference, PutBucketLifecycleConfiguration.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from couchestor_domain import lifecycle, units
from couchestor_gateway.protocol import lifecycle_filter, s3_error, timestamps, xml_tree
from couchestor_gateway.protocol import lifecycle_numbers as numbers
from couchestor_gateway.protocol.xml_writing import Document

BYTES_MAX: Final = 512 * units.KIB
RULES_MAX: Final = 1_000
ID_CHARACTERS_MAX: Final = 255
NEWER_VERSIONS_MAX: Final = 100
_ELEMENTS_MAX: Final = 64 * RULES_MAX

_DATE_NS_MAX: Final = 2**63 - 1

_STATUSES: Final = {"Enabled": True, "Disabled": False}
_FLAGS: Final = {"true": True, "false": False}
_ROOTS: Final = "LifecycleConfiguration"


def parse(document: bytes) -> lifecycle.Configuration:
    """The rules that a document holds; a rule without an id gets one.

    Raises:
        S3Error: MalformedXML, InvalidArgument, InvalidRequest, InvalidStorageClass.
    """
    root = xml_tree.parse(document, _ROOTS, bytes_max=BYTES_MAX, elements_max=_ELEMENTS_MAX)
    if not 1 <= len(root.children) <= RULES_MAX:
        xml_tree.refuse()
    rules = tuple(_rule(element, index) for index, element in enumerate(root.children))
    ids = [rule.rule_id for rule in rules]
    if len(set(ids)) != len(ids):
        raise s3_error.make(
            "InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule"
        )
    return lifecycle.Configuration(rules=rules)


def write(configuration: lifecycle.Configuration) -> bytes:
    """The document that tells the rules, each filter as it was put."""
    xml = Document(_ROOTS)
    for rule in configuration.rules:
        xml.open("Rule").text("ID", rule.rule_id)
        lifecycle_filter.write(xml, rule.filter)
        xml.text("Status", "Enabled" if rule.is_enabled else "Disabled")
        _write_actions(xml, rule)
        xml.close("Rule")
    return xml.finish()


def _write_actions(xml: Document, rule: lifecycle.Rule) -> None:
    if rule.days is not None:
        xml.open("Expiration").text("Days", rule.days).close("Expiration")
    elif rule.date_ns is not None:
        date = timestamps.iso8601(rule.date_ns)
        xml.open("Expiration").text("Date", date).close("Expiration")
    elif rule.removes_lone_markers is not None:
        xml.open("Expiration").flag("ExpiredObjectDeleteMarker", rule.removes_lone_markers)
        xml.close("Expiration")
    if rule.noncurrent_days is not None:
        xml.open("NoncurrentVersionExpiration").text("NoncurrentDays", rule.noncurrent_days)
        if rule.newer_noncurrent_count is not None:
            xml.text("NewerNoncurrentVersions", rule.newer_noncurrent_count)
        xml.close("NoncurrentVersionExpiration")
    if rule.abort_days is not None:
        xml.open("AbortIncompleteMultipartUpload").text("DaysAfterInitiation", rule.abort_days)
        xml.close("AbortIncompleteMultipartUpload")


def _rule(element: xml_tree.Element, index: int) -> lifecycle.Rule:
    if element.name != "Rule":
        xml_tree.refuse()
    rule_id = ""
    is_enabled: bool | None = None
    asked: lifecycle.Filter | None = None
    actions: dict[str, Any] = {}
    seen: set[str] = set()
    for child in element.children:
        name = child.name
        # A rule may have several transitions, which are refused one by one.
        if name in seen and name not in ("Transition", "NoncurrentVersionTransition"):
            xml_tree.refuse()
        seen.add(name)
        if name == "ID":
            rule_id = child.text
        elif name == "Status":
            is_enabled = _STATUSES.get(child.text.strip())
        elif name in ("Prefix", "Filter"):
            if asked is not None:
                raise s3_error.make(
                    "InvalidRequest",
                    "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported"
                    " in the Filter.",
                )
            asked = lifecycle_filter.read(child)
        elif name in _ACTIONS:
            actions |= _ACTIONS[name](child)
        else:
            xml_tree.refuse(f"Unexpected element {name[:64]}.")
    if asked is None or is_enabled is None:
        xml_tree.refuse()
    if len(rule_id) > ID_CHARACTERS_MAX:
        raise s3_error.make(
            "InvalidArgument", f"ID length should not exceed allowed limit of {ID_CHARACTERS_MAX}"
        )
    if not actions:
        _unsupported("At least one action needs to be specified in a rule.")
    rule = lifecycle.Rule(rule_id=rule_id, is_enabled=is_enabled, filter=asked, **actions)
    _check_filter(rule)
    return rule if rule_id else dataclasses.replace(rule, rule_id=_made_id(rule, index))


def _check_filter(rule: lifecycle.Rule) -> None:
    """Stop actions on what has no tags or no size, with a filter for those."""
    asked = rule.filter
    has_size = asked.larger_than_bytes is not None or asked.smaller_than_bytes is not None
    for is_given, name in (
        (rule.removes_lone_markers is not None, "ExpiredObjectDeleteMarker"),
        (rule.abort_days is not None, "AbortIncompleteMultipartUpload"),
    ):
        if is_given and asked.tags:
            _unsupported(f"{name} cannot be specified with Tags.")
        if is_given and has_size:
            _unsupported(f"{name} cannot be specified with Object Size.")


def _made_id(rule: lifecycle.Rule, index: int) -> str:
    """An id for a rule that was given none: the same for the same document."""
    digest = hashlib.sha256(f"{index}:{rule!r}".encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def _expiration(element: xml_tree.Element) -> dict[str, Any]:
    # Each of the three excludes the others.
    if len(element.children) != 1:
        xml_tree.refuse()
    child = element.children[0]
    if child.name == "Days":
        return {"days": numbers.positive(child, "'Days' for Expiration action")}
    if child.name == "Date":
        return {"date_ns": _midnight(child.text)}
    flag = _FLAGS.get(child.text.strip().lower())
    if child.name != "ExpiredObjectDeleteMarker" or flag is None:
        xml_tree.refuse()
    return {"removes_lone_markers": flag}


def _noncurrent(element: xml_tree.Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in element.children:
        if child.name in found:
            xml_tree.refuse()
        if child.name == "NoncurrentDays":
            found[child.name] = numbers.positive(
                child, "'NoncurrentDays' for NoncurrentVersionExpiration action"
            )
        elif child.name == "NewerNoncurrentVersions":
            what = "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action"
            found[child.name] = numbers.positive(child, what, most=NEWER_VERSIONS_MAX)
        else:
            xml_tree.refuse()
    if "NoncurrentDays" not in found:
        xml_tree.refuse()
    return {
        "noncurrent_days": found["NoncurrentDays"],
        "newer_noncurrent_count": found.get("NewerNoncurrentVersions"),
    }


def _abort(element: xml_tree.Element) -> dict[str, Any]:
    if len(element.children) != 1 or element.children[0].name != "DaysAfterInitiation":
        xml_tree.refuse()
    what = "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action"
    return {"abort_days": numbers.positive(element.children[0], what)}


def _transition(element: xml_tree.Element) -> NoReturn:
    for child in element.children:
        if child.name == "Date":
            _midnight(child.text)
    name = (element.find("StorageClass") or "").strip()
    if not name:
        xml_tree.refuse()
    raise s3_error.make(
        "InvalidStorageClass",
        "There is no other storage class here that objects could be moved to.",
        StorageClassRequested=name[:64],
    )


_ACTIONS: Final[Mapping[str, Callable[[xml_tree.Element], dict[str, Any]]]] = {
    "Expiration": _expiration,
    "NoncurrentVersionExpiration": _noncurrent,
    "AbortIncompleteMultipartUpload": _abort,
    "Transition": _transition,
    "NoncurrentVersionTransition": _transition,
}


def _midnight(text: str) -> int:
    text = text.strip()
    # A bare date is the midnight it begins with.
    if len(text) == 10 and text[4:5] == text[7:8] == "-":
        text += "T00:00:00Z"
    date_ns = timestamps.parse_iso8601(text)
    if date_ns is None:
        xml_tree.refuse()
    if not 0 <= date_ns <= _DATE_NS_MAX:
        raise s3_error.make("InvalidArgument", "'Date' must be between 1970 and 2262")
    if date_ns % lifecycle.NS_PER_DAY:
        raise s3_error.make("InvalidArgument", "'Date' must be at midnight GMT")
    return date_ns


def _unsupported(message: str) -> NoReturn:
    raise s3_error.make("InvalidRequest", message)
