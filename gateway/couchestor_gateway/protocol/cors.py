"""Which requests of other sites a bucket's owner lets browsers make: CORS rules.

A rule lets in a request that comes from one of its origins, by one of its methods, with no header
but its own; the first one that does is answered by. Whoever sends these is not known, so what
matching costs is bounded: it grows with the length of the request times that of the rules.

Source: Amazon S3 User Guide, "Elements of a CORS configuration"; AWS S3 API reference, "CORSRule".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_domain import units
from couchestor_gateway.protocol import header_syntax, s3_error, xml_tree, xml_writing
from couchestor_gateway.protocol.policy import wildcards

DOCUMENT_BYTES_MAX: Final = 64 * units.KIB
RULES_MAX: Final = 100
ID_CHARACTERS_MAX: Final = 255
METHODS: Final = ("GET", "PUT", "HEAD", "POST", "DELETE")
ORIGIN_CHARACTERS_MAX: Final = 2_048
"""Origins that are longer are nobody's."""
HEADERS_MAX: Final = 256
HEADERS_CHARACTERS_MAX: Final = 4_096
"""Of the headers that a preflight names: one that names more is let in by no rule."""

_SECONDS_MAX: Final = 2**31 - 1
_ANY: Final = "*"
_LISTS: Final = {
    "AllowedHeader": "allowed_headers",
    "AllowedMethod": "methods",
    "AllowedOrigin": "origins",
    "ExposeHeader": "exposed_headers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, as it was put."""

    rule_id: str | None = None
    origins: tuple[str, ...]
    """At most one wildcard each."""
    methods: tuple[str, ...]
    allowed_headers: tuple[str, ...] = ()
    """At most one wildcard each."""
    exposed_headers: tuple[str, ...] = ()
    max_age_seconds: int | None = None


class _Ready:
    """A rule, its patterns ready to be asked."""

    __slots__ = ("_headers", "_methods", "_origins", "answers", "is_anybodys")

    def __init__(self, rule: Rule) -> None:
        self._methods = frozenset(rule.methods)
        self._origins = wildcards.Patterns(map(_pattern, rule.origins))
        self._headers = wildcards.Patterns(_pattern(name.lower()) for name in rule.allowed_headers)
        self.is_anybodys = _ANY in rule.origins
        answers = {"Access-Control-Allow-Methods": ", ".join(rule.methods)}
        if rule.exposed_headers:
            answers["Access-Control-Expose-Headers"] = ", ".join(rule.exposed_headers)
        if rule.max_age_seconds is not None:
            answers["Access-Control-Max-Age"] = str(rule.max_age_seconds)
        self.answers = answers

    def lets_in(self, origin: str, method: str, headers: Sequence[str]) -> bool:
        if method not in self._methods:
            return False
        if not self.is_anybodys and not self._origins.match(origin):
            return False
        return all(map(self._headers.match, headers))


class Rules:
    """What a bucket's configuration lets in."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(map(_Ready, rules))

    def answer(self, origin: str, method: str, requested_headers: str = "") -> dict[str, str]:
        """The headers that let a browser go on; none if no rule lets the request in.

        Args:
            origin: As the request has it.
            method: The one that is asked for, which a preflight is not.
            requested_headers: Value of Access-Control-Request-Headers.
        """
        names = header_names(requested_headers)
        if names is None or len(origin) > ORIGIN_CHARACTERS_MAX:
            return {}
        if not (origin.isascii() and origin.isprintable()):
            return {}  # No browser's; and it goes out in a header.
        for rule in self._rules:
            if not rule.lets_in(origin, method, names):
                continue
            answers = {"Access-Control-Allow-Origin": _ANY if rule.is_anybodys else origin}
            answers.update(rule.answers)
            if names:
                answers["Access-Control-Allow-Headers"] = ", ".join(names)
            if not rule.is_anybodys:
                answers["Access-Control-Allow-Credentials"] = "true"
            return answers
        return {}


def header_names(value: str) -> list[str] | None:
    """The headers that a preflight names, in lower case; None if it names too much."""
    if len(value) > HEADERS_CHARACTERS_MAX:
        return None
    names = list(dict.fromkeys(name.strip().lower() for name in value.split(",") if name.strip()))
    if len(names) > HEADERS_MAX or not all(map(header_syntax.is_name, names)):
        return None
    return names


def parse(document: bytes) -> tuple[Rule, ...]:
    """The rules of a CORSConfiguration.

    Raises:
        S3Error: MalformedXML, InvalidRequest for what a rule cannot say.
    """
    root = xml_tree.parse(
        document,
        "CORSConfiguration",
        bytes_max=DOCUMENT_BYTES_MAX,
        elements_max=DOCUMENT_BYTES_MAX // 8,
    )
    if len(root.children) > RULES_MAX:
        raise _refusal(
            f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules."
        )
    if not root.children or any(child.name != "CORSRule" for child in root.children):
        xml_tree.refuse()
    return tuple(_rule(child) for child in root.children)


def write(rules: Iterable[Rule]) -> bytes:
    """The document that tells rules.

    Raises:
        S3Error: InvalidRequest for one that is too long to be kept.
    """
    xml = xml_writing.Document("CORSConfiguration")
    for rule in rules:
        xml.open("CORSRule")
        if rule.rule_id is not None:
            xml.text("ID", rule.rule_id)
        for name, field in _LISTS.items():
            for value in getattr(rule, field):
                xml.text(name, value)
        if rule.max_age_seconds is not None:
            xml.text("MaxAgeSeconds", rule.max_age_seconds)
        xml.close("CORSRule")
    document = xml.finish()
    if len(document) > DOCUMENT_BYTES_MAX:
        raise _refusal(f"The CORS configuration is longer than {DOCUMENT_BYTES_MAX} bytes.")
    return document


def _rule(element: xml_tree.Element) -> Rule:
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    rule_id: str | None = None
    seconds: int | None = None
    for child in element.children:
        text = child.text.strip()
        if child.children or not xml_writing.is_writable(text):
            xml_tree.refuse()
        if child.name in lists:
            lists[child.name].append(text)
        elif child.name == "ID" and rule_id is None:
            rule_id = child.text
        elif child.name == "MaxAgeSeconds" and seconds is None:
            seconds = _seconds(text)
        else:
            xml_tree.refuse()
    if rule_id is not None and len(rule_id) > ID_CHARACTERS_MAX:
        raise s3_error.make(
            "InvalidArgument",
            f"ID length should not exceed allowed limit of {ID_CHARACTERS_MAX}",
            ArgumentName="ID",
            ArgumentValue=rule_id[:ID_CHARACTERS_MAX],
        )
    if not lists["AllowedMethod"] or not all(lists["AllowedOrigin"] or ("",)):
        xml_tree.refuse()
    for method in lists["AllowedMethod"]:
        if method not in METHODS:
            raise _refusal(
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method[:64]}"
            )
    for name in ("AllowedOrigin", "AllowedHeader"):
        for value in lists[name]:
            if value.count(_ANY) > 1:
                raise _refusal(f'{name} "{value[:256]}" can not have more than one wildcard.')
    for value in lists["ExposeHeader"]:
        if _ANY in value:
            raise _refusal(
                f'ExposeHeader "{value[:256]}" contains wildcard. We currently do not support'
                " wildcard for ExposeHeader."
            )
        if not header_syntax.is_name(value):
            # It goes out in a header.
            raise _refusal(f'ExposeHeader "{value[:256]}" is not the name of a header.')
    return Rule(
        rule_id=rule_id,
        max_age_seconds=seconds,
        **{field: tuple(lists[name]) for name, field in _LISTS.items()},
    )


def _pattern(text: str) -> list[str | wildcards.Wild]:
    """A text whose ``*`` alone is a wildcard: a ``?`` is itself."""
    before, star, after = text.partition(_ANY)
    pieces: list[str | wildcards.Wild] = [before] if before else []
    if star:
        pieces.append(wildcards.Wild.ANY)
    if after:
        pieces.append(after)
    return pieces


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > _SECONDS_MAX:
        xml_tree.refuse()
    return int(text)


def _refusal(message: str) -> s3_error.S3Error:
    return s3_error.make("InvalidRequest", message)
