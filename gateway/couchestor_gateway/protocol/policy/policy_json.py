"""A policy's JSON, read strictly: bounded, nothing said twice, nothing that JSON does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from couchestor_gateway.protocol import s3_error

DOCUMENT_BYTES_MAX: Final = 20_480

Value = str | bool | None | Sequence["Value"] | Mapping[str, "Value"]
"""What JSON holds; numbers as they are written, because conditions compare them as decimals."""


def malformed(sentence: str) -> s3_error.S3Error:
    """The refusal of a policy."""
    return s3_error.make("MalformedPolicy", sentence)


def parse(document: bytes) -> Mapping[str, Value]:
    """The object that a document holds.

    Raises:
        S3Error: MalformedPolicy for what is too long, no JSON object, or names a member twice.
    """
    if document[:1] != b"{":
        raise malformed("Policies must be valid JSON and the first byte must be '{'")
    if len(document) > DOCUMENT_BYTES_MAX:
        raise malformed(
            "Normalized policy document exceeds the maximum allowed size of"
            f" {DOCUMENT_BYTES_MAX} bytes"
        )
    try:
        found: Mapping[str, Value] = json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_int=str,
            parse_float=str,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as exc:
        raise malformed("This policy contains invalid Json") from exc
    return found


def texts(value: Value) -> list[str]:
    """The texts of an element that holds one or several. Raises S3Error: MalformedPolicy."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise malformed("Invalid policy syntax.")
    return [str(item) for item in items]


def _once_each(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name comes twice")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
