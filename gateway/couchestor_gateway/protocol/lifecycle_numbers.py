"""Whole numbers in lifecycle configurations."""

from __future__ import annotations

from typing import Final

from couchestor_gateway.protocol import s3_error, xml_tree

_DAYS_MAX: Final = 2**31 - 1


def positive(element: xml_tree.Element, what: str, *, most: int = _DAYS_MAX) -> int:
    """A number from 1. Raises S3Error: InvalidArgument, MalformedXML for what is no number."""
    number = whole(element)
    if number < 1:
        raise s3_error.make("InvalidArgument", f"{what} must be a positive integer")
    if number > most:
        raise s3_error.make("InvalidArgument", f"{what} must not be greater than {most}")
    return number


def whole(element: xml_tree.Element) -> int:
    """A number. Raises S3Error: MalformedXML."""
    text = element.text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15) or element.children:
        xml_tree.refuse()
    return int(text)
