"""Policies of forms: what the owner of a key lets somebody without one upload, and until when.

A policy is a JSON document: when it expires, and conditions on the form's fields. Every field must
be covered by a condition, or the one who fills in the form could add what the signer never saw.

Source: AWS S3 API reference, "POST Policy" (conditions, their matching, escapes).
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from couchestor_domain import units
from couchestor_gateway.protocol import s3_error, timestamps

CONDITIONS_MAX: Final = 256
_EXEMPT: Final = frozenset({"awsaccesskeyid", "file", "policy", "signature", "x-amz-signature"})
_EXEMPT_PREFIXES: Final = (
    "x-ignore-",
    # Says what the bytes are that are sent anyway, and gives whoever sends them nothing.
    "x-amz-checksum-",
)
_RANGE: Final = "content-length-range"
_SIZE_BYTES_LIMIT: Final = units.TIB << 20


class Match(enum.Enum):
    """How a condition compares a field with its value."""

    EXACT = "eq"
    PREFIX = "starts-with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What one field must be."""

    match: Match
    field: str
    """In lower case."""
    value: str
    text: str
    """As the policy writes it, for the refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy that has been read; nothing is judged yet."""

    expires_ns: int
    """Since the Unix epoch."""
    conditions: tuple[Condition, ...]
    size_bytes_min: int
    size_bytes_max: int | None
    """Bounds on the file, both allowed; None: the policy sets no upper one."""

    def check(self, fields: Mapping[str, str], *, now_ns: int) -> None:
        """Stop a form that the policy does not allow; the file's size is not judged here.

        Args:
            fields: Values by field name in lower case, ``${filename}`` already replaced; with
                ``bucket`` as the request addresses it.
            now_ns: Wall clock, since the Unix epoch.

        Raises:
            S3Error: AccessDenied, which says what failed.
        """
        if now_ns >= self.expires_ns:
            raise _denied("Policy expired.")
        for condition in self.conditions:
            if not _holds(condition, fields.get(condition.field, "")):
                raise _denied(f"Policy Condition failed: {condition.text}")
        covered = {condition.field for condition in self.conditions}
        extra = [name for name in fields if name not in covered and not _is_exempt(name)]
        if extra:
            raise _denied(f"Extra input fields: {', '.join(sorted(extra))}")


def parse(encoded: str) -> Policy:
    """The policy in a form's ``policy`` field.

    Args:
        encoded: Base64; line breaks and blanks between its characters are taken for none.

    Raises:
        S3Error: InvalidPolicyDocument, which says what is wrong with it.
    """
    document = _document(encoded)
    for name in document:
        if name not in ("expiration", "conditions"):
            raise _invalid(f"Unexpected: '{name[:64]}'. Names are case-sensitive")
    expiration = document.get("expiration")
    if expiration is None:
        raise _invalid("Policy is missing expiration")
    expires_ns = timestamps.parse_iso8601(expiration) if isinstance(expiration, str) else None
    if expires_ns is None:
        raise _invalid(
            f"Invalid 'expiration' value: {_shown(expiration)}; expecting a moment with its zone,"
            " as 2026-10-21T07:28:00.000Z"
        )
    listed = document.get("conditions")
    if not isinstance(listed, list):
        raise _invalid("Policy must have conditions, as a list")
    if len(listed) > CONDITIONS_MAX:
        raise _invalid(f"There are more than {CONDITIONS_MAX} conditions")
    conditions: list[Condition] = []
    size_bytes_min = 0
    size_bytes_max: int | None = None
    for item in listed:
        bounds = _size_bounds(item)
        if bounds is None:
            conditions.append(_condition(item))
            continue
        size_bytes_min = max(size_bytes_min, bounds[0])
        size_bytes_max = min(bounds[1], bounds[1] if size_bytes_max is None else size_bytes_max)
    return Policy(
        expires_ns=expires_ns,
        conditions=tuple(conditions),
        size_bytes_min=size_bytes_min,
        size_bytes_max=size_bytes_max,
    )


def _document(encoded: str) -> dict[str, object]:
    try:
        text = base64.b64decode("".join(encoded.split()), validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as exc:
        raise _invalid("It is not UTF-8 encoded as Base64") from exc
    try:
        document = json.loads(_without_escapes_of_our_own(text))
    except (ValueError, RecursionError) as exc:
        raise _invalid("Invalid JSON") from exc
    if not isinstance(document, dict):
        raise _invalid("It is not a JSON object")
    return document


def _without_escapes_of_our_own(text: str) -> str:
    """The policy as JSON: ``\\$`` and ``\\v`` are escapes of policies only."""
    if "\\" not in text:
        return text
    pieces: list[str] = []
    start = 0
    at = text.find("\\")
    while at >= 0:
        replacement = {"$": "$", "v": "\\u000b"}.get(text[at + 1 : at + 2])
        if replacement is not None:
            pieces += (text[start:at], replacement)
            start = at + 2
        at = text.find("\\", at + 2)
    pieces.append(text[start:])
    return "".join(pieces)


def _size_bounds(item: object) -> tuple[int, int] | None:
    """What a condition says of the file's size; None for one that says something of a field."""
    if not (isinstance(item, list) and item and isinstance(item[0], str)):
        return None
    if item[0].lower() != _RANGE:
        return None
    bounds = [_size(value) for value in item[1:]]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None or bounds[0] > bounds[1]:
        raise _invalid(
            f"Invalid Condition: {_shown(item)}; {_RANGE} takes the least and the greatest number"
            " of bytes"
        )
    return bounds[0], bounds[1]


def _size(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _SIZE_BYTES_LIMIT:
        return value
    return None


def _condition(item: object) -> Condition:
    if isinstance(item, dict):
        if len(item) != 1:
            raise _invalid(
                f"Invalid Simple-Condition: {_shown(item)}; an object names exactly one field"
            )
        ((field, value),) = item.items()
        match = Match.EXACT
    elif isinstance(item, list) and len(item) == 3:
        operator, field, value = item
        if not isinstance(operator, str) or operator.lower() not in _MATCHES:
            raise _invalid(
                f"Invalid Condition: {_shown(item)}; it begins with none of"
                f" {', '.join((*_MATCHES, _RANGE))}"
            )
        match = _MATCHES[operator.lower()]
        if not isinstance(field, str) or not field.startswith("$"):
            raise _invalid(f"Invalid Condition: {_shown(item)}; the field's name begins with a $")
        field = field[1:]
    else:
        raise _invalid(f"Invalid Condition: {_shown(item)}; expecting an object or three values")
    if not isinstance(value, str) or not field:
        raise _invalid(f"Invalid Condition: {_shown(item)}; name and value are texts")
    return Condition(match=match, field=field.lower(), value=value, text=_shown(item))


_MATCHES: Final = {match.value: match for match in Match}


def _holds(condition: Condition, value: str) -> bool:
    if condition.match is Match.EXACT:
        return value == condition.value
    if condition.field == "content-type" and "," in value:
        return all(part.strip().startswith(condition.value) for part in value.split(","))
    return value.startswith(condition.value)


def _is_exempt(name: str) -> bool:
    return name in _EXEMPT or name.startswith(_EXEMPT_PREFIXES)


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _denied(reason: str) -> s3_error.S3Error:
    return s3_error.make("AccessDenied", f"Invalid according to Policy: {reason}")


def _invalid(reason: str) -> s3_error.S3Error:
    return s3_error.make("InvalidPolicyDocument", f"Invalid Policy: {reason}.")
