"""How listings encode keys, markers and continuation tokens."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final

from couchestor_gateway.protocol import s3_error, xml_writing

PAGE_LIMIT_MAX: Final = 1000


def key_encoder(query: Mapping[str, str]) -> Callable[[str], str]:
    """The function that writes keys as ``encoding-type`` asks.

    Without one it raises InvalidArgument for a key that XML cannot hold: a page that no parser
    takes, or that lists the key under another name, helps nobody.

    Raises:
        S3Error: InvalidArgument for an encoding type other than ``url``.
    """
    encoding = query.get("encoding-type", "")
    if not encoding:
        return _plain
    if encoding != "url":
        raise s3_error.make("InvalidArgument", "Invalid Encoding Method specified in Request")
    return urllib.parse.quote


def page_limit(query: Mapping[str, str], name: str) -> int:
    """The page size a client asks for under ``name``, at most ``PAGE_LIMIT_MAX``.

    Raises:
        S3Error: InvalidArgument when it is not a non-negative 32-bit integer.
    """
    text = query.get(name, "")
    if not text:
        return PAGE_LIMIT_MAX
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > 0x7FFFFFFF:
        raise s3_error.make(
            "InvalidArgument",
            f"Argument {name} must be an integer between 0 and 2147483647",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return min(int(text), PAGE_LIMIT_MAX)


def part_marker(query: Mapping[str, str], name: str) -> int:
    """The part number a page starts behind; 0 when none is given.

    Raises:
        S3Error: InvalidArgument when it is not a non-negative integer of at most ten digits.
    """
    text = query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise s3_error.make(
            "InvalidArgument",
            f"Argument {name} must be a number",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return int(text)


def encode_token(after: str) -> str:
    """An opaque continuation token that stands for the last key of a page."""
    return base64.urlsafe_b64encode(after.encode()).decode("ascii")


def decode_token(token: str) -> str:
    """The key behind a continuation token.

    Raises:
        S3Error: InvalidArgument when the token is not one of ours.
    """
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as exc:
        raise s3_error.make(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        ) from exc


def _plain(key: str) -> str:
    if xml_writing.is_writable(key):
        return key
    raise s3_error.make(
        "InvalidArgument",
        "A key, prefix or marker of this page holds a character that XML cannot. Ask for the"
        " listing with encoding-type=url.",
        ArgumentName="encoding-type",
    )
