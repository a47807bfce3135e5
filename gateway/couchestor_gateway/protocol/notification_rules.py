"""Which events of a bucket are told to which targets: its notification configuration.

Targets are the node's, configured by whoever runs it; a bucket's owner names one by an ARN:
``arn:couchestor:webhook:::NAME``, or one of a queue, topic or function of AWS that ends in the
name, so that tools which know nothing else can say it.

Source: AWS S3 API reference, "NotificationConfiguration"; Amazon S3 User Guide, "Event notification
types and destinations".
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from couchestor_domain import notices, units
from couchestor_gateway.protocol import s3_error, xml_tree, xml_writing

DOCUMENT_BYTES_MAX: Final = 64 * units.KIB
RULES_MAX: Final = 100
ID_CHARACTERS_MAX: Final = 255
FILTER_BYTES_MAX: Final = 1_024
ARN_PREFIX: Final = "arn:couchestor:webhook:::"

_PREFIX: Final = "s3:"
_KINDS: Final = {
    "TopicConfiguration": ("Topic", "sns"),
    "QueueConfiguration": ("Queue", "sqs"),
    "CloudFunctionConfiguration": ("CloudFunction", "lambda"),
}
"""Element of a rule -> that of its destination, and the service that AWS's ARN names."""
_KNOWN: Final = {f"{_PREFIX}{event}": frozenset({event}) for event in notices.EVENTS} | {
    f"{_PREFIX}{family}:*": frozenset(
        event for event in notices.EVENTS if event.startswith(f"{family}:")
    )
    for family in ("ObjectCreated", "ObjectRemoved", "ObjectTagging")
}
"""What a rule may name -> the events that are meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, as it was put."""

    kind: str
    rule_id: str
    arn: str
    events: tuple[str, ...]
    filters: tuple[tuple[str, str], ...] = ()
    """``prefix`` and ``suffix``, as they were written, and their values; None of them twice."""

    @property
    def target(self) -> str:
        """Name of the node's target."""
        return self.arn.rpartition(":")[2]


class Rules:
    """What a bucket's configuration tells to whom."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules: dict[str, list[tuple[str, str, notices.Interest]]] = {}
        for rule in rules:
            filters = {name.lower(): text for name, text in rule.filters}
            asked = (
                filters.get("prefix", ""),
                filters.get("suffix", ""),
                notices.Interest(rule.target, rule.rule_id),
            )
            for event in frozenset[str]().union(*(_KNOWN[name] for name in rule.events)):
                self._rules.setdefault(event, []).append(asked)

    def interests(self, event: str, key: str) -> tuple[notices.Interest, ...]:
        """Who wants to know of an event of a key."""
        return tuple(
            interest
            for prefix, suffix, interest in self._rules.get(event, ())
            if key.startswith(prefix) and key.endswith(suffix)
        )


def parse(document: bytes, *, targets: Container[str] | None = None) -> tuple[Rule, ...]:
    """The rules of a NotificationConfiguration; one without an ID gets one.

    Args:
        targets: Names of the node's; None: the destinations have been looked at.

    Raises:
        S3Error: MalformedXML, InvalidArgument for what a rule cannot say, NotImplemented.
    """
    root = xml_tree.parse(
        document,
        "NotificationConfiguration",
        bytes_max=DOCUMENT_BYTES_MAX,
        elements_max=DOCUMENT_BYTES_MAX // 8,
    )
    rules: list[Rule] = []
    for child in root.children:
        if child.name == "EventBridgeConfiguration":
            raise s3_error.make("NotImplemented", "There is no EventBridge here.")
        if child.name not in _KINDS:
            xml_tree.refuse(f"Unexpected element {child.name[:64]}.")
        rules.append(_rule(child, number=len(rules)))
    if len(rules) > RULES_MAX:
        _refuse(f"A bucket has at most {RULES_MAX} notification configurations.")
    if len({rule.rule_id for rule in rules}) != len(rules):
        _refuse("Same ID used for multiple configurations. IDs must be unique")
    if targets is not None:
        for rule in rules:
            if rule.target not in targets:
                _refuse(
                    "Unable to validate the following destination configurations",
                    rule.arn,
                    "The destination is no target of this node.",
                )
    return tuple(rules)


def write(rules: Iterable[Rule]) -> bytes:
    """The document that tells rules; of none, an empty one."""
    xml = xml_writing.Document("NotificationConfiguration")
    for rule in rules:
        xml.open(rule.kind).text("Id", rule.rule_id).text(_KINDS[rule.kind][0], rule.arn)
        for event in rule.events:
            xml.text("Event", event)
        if rule.filters:
            xml.open("Filter").open("S3Key")
            for name, value in rule.filters:
                xml.open("FilterRule").text("Name", name).text("Value", value)
                xml.close("FilterRule")
            xml.close("S3Key").close("Filter")
        xml.close(rule.kind)
    document = xml.finish()
    if len(document) > DOCUMENT_BYTES_MAX:
        _refuse(f"The configuration is longer than {DOCUMENT_BYTES_MAX} bytes.")
    return document


def _rule(element: xml_tree.Element, *, number: int) -> Rule:
    destination, service = _KINDS[element.name]
    rule_id = arn = None
    events: list[str] = []
    filters: tuple[tuple[str, str], ...] | None = None
    for child in element.children:
        text = child.text.strip()
        if child.name == "Id" and rule_id is None:
            rule_id = text
        elif child.name == destination and arn is None:
            arn = text
        elif child.name == "Event":
            events.append(text)
        elif child.name == "Filter" and filters is None:
            filters = _filters(child)
        else:
            xml_tree.refuse()
    if arn is None or not events:
        xml_tree.refuse()
    for event in events:
        if event not in _KNOWN:
            _refuse("The event is not supported for notifications", event, name="Event")
    if not _is_arn(arn, service):
        _refuse("The ARN is not well formed", arn)
    if not rule_id:
        told = repr((number, element.name, arn, events, filters))
        rule_id = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:32]
    if len(rule_id) > ID_CHARACTERS_MAX or not xml_writing.is_writable(rule_id):
        _refuse(f"An ID has at most {ID_CHARACTERS_MAX} characters.", rule_id, name="Id")
    return Rule(
        kind=element.name,
        rule_id=rule_id,
        arn=arn,
        events=tuple(dict.fromkeys(events)),
        filters=filters or (),
    )


def _filters(element: xml_tree.Element) -> tuple[tuple[str, str], ...]:
    found: dict[str, tuple[str, str]] = {}
    for inner in element.children:
        if inner.name != "S3Key":
            xml_tree.refuse()
        for rule in inner.children:
            name, value = rule.find("Name"), rule.find("Value")
            if rule.name != "FilterRule" or name is None:
                xml_tree.refuse()
            value = value or ""
            kind = name.strip().lower()
            if kind not in ("prefix", "suffix"):
                _refuse("filter rule name must be either prefix or suffix", name, name="FilterRule")
            if kind in found:
                _refuse(f"Cannot specify more than one {kind} rule in a filter.")
            if len(value.encode()) > FILTER_BYTES_MAX or not xml_writing.is_writable(value):
                _refuse(
                    "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation"
                )
            found[kind] = (name.strip(), value)
    return tuple(found.values())


def _is_arn(arn: str, service: str) -> bool:
    parts = arn.split(":")
    if len(parts) < 6 or parts[0] != "arn" or not parts[-1] or not arn.isascii():
        return False
    if not arn.isprintable():
        return False
    if arn.startswith(ARN_PREFIX):
        return len(parts) == 6
    if not parts[1].startswith("aws") or parts[2] != service:
        return False
    return len(parts) == (7 if service == "lambda" else 6)


def _refuse(message: str, value: str = "", detail: str = "", *, name: str = "") -> NoReturn:
    extra = {"ArgumentName": name or value[:256], "ArgumentValue": detail or value[:256]}
    raise s3_error.make("InvalidArgument", message, **(extra if value else {}))
