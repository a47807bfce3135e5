"""What the fields of a form ask for: the object's key, its headers, the answer.

Source: AWS S3 API reference, "POST Object" (form fields).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Final

from couchestor_gateway.protocol import (
    form_data,
    header_syntax,
    object_keys,
    post_signature,
    s3_error,
)

_FILENAME: Final = "${filename}"
_HEADERS: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-md5",
        "content-type",
        "expires",
    }
)
_STATUSES: Final = {"200": 200, "201": 201}
_URL_SAFE: Final = "".join(map(chr, range(0x21, 0x7F)))


def by_name(fields: Iterable[form_data.Field]) -> dict[str, str]:
    """Values by name in lower case: field names have no case.

    Raises:
        S3Error: InvalidArgument for a name given twice: a policy could be checked against one
            value and the other be used.
    """
    found: dict[str, str] = {}
    for field in fields:
        name = field.name.lower()
        if name in found:
            raise s3_error.make(
                "InvalidArgument",
                f"The form has more than one field named '{field.name[:64]}'.",
                ArgumentName=field.name[:64],
            )
        found[name] = field.value
    return found


def key_of(fields: Mapping[str, str], filename: str) -> str:
    """The object's key, with the name of the uploaded file where it asks for it.

    Args:
        fields: Values by field name in lower case.
        filename: As the client sent it; of a path only what follows the last slash or backslash
            counts.

    Raises:
        S3Error: InvalidArgument (missing, empty, NUL), KeyTooLongError.
    """
    if "key" not in fields:
        raise post_signature.missing("key")
    base_name = filename.replace("\\", "/").rpartition("/")[2]
    key = fields["key"].replace(_FILENAME, base_name)
    if not key or "\0" in key:
        raise s3_error.make(
            "InvalidArgument",
            "User key must have a length greater than 0."
            if not key
            else "Object keys may not hold the NUL character.",
            ArgumentName="key",
            ArgumentValue="",
        )
    size_bytes = len(key.encode())
    if size_bytes > object_keys.BYTES_MAX:
        raise object_keys.too_long(size_bytes)
    return key


def headers_of(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers that a PUT would carry in place of the form's fields; names in lower case.

    Raises:
        S3Error: InvalidArgument for what no header can hold: it would go out as one again.
    """
    headers: dict[str, str] = {}
    for name, value in fields.items():
        if name in _HEADERS or (name.startswith("x-amz-") and name not in post_signature.FIELDS):
            headers[name] = value.strip(" \t")
    if "acl" in fields:
        headers["x-amz-acl"] = fields["acl"].strip(" \t")
    for name, value in headers.items():
        if not header_syntax.is_name(name) or not header_syntax.is_value(value):
            raise s3_error.make(
                "InvalidArgument",
                f"The field '{name[:64]}' holds what no header can hold.",
                ArgumentName=name[:64],
            )
    return headers


def success_status(fields: Mapping[str, str]) -> int:
    """The status of success that the form asks for; one that S3 does not know is no wish."""
    return _STATUSES.get(fields.get("success_action_status", ""), 204)


def ascii_url(text: str) -> str:
    """A URL as a header can hold it: bytes beyond ASCII written as browsers write them."""
    return urllib.parse.quote(text, safe=_URL_SAFE, errors="replace")


def success_url(fields: Mapping[str, str], *, bucket: str, key: str, etag: str) -> str | None:
    """Where a browser is sent after success; None where the form names no URL.

    Args:
        etag: Without quotes.
    """
    wanted = fields.get("success_action_redirect") or fields.get("redirect", "")
    if not header_syntax.is_value(wanted):
        return None
    try:
        parts = urllib.parse.urlsplit(ascii_url(wanted.strip()))
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        return None
    told = urllib.parse.urlencode(
        {"bucket": bucket, "key": key, "etag": f'"{etag}"'}, quote_via=urllib.parse.quote, safe=""
    )
    query = f"{parts.query}&{told}" if parts.query else told
    return urllib.parse.urlunsplit(parts._replace(query=query))
