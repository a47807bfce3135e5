"""What the headers of a form and of its parts say: boundary, name, name of the file."""

from __future__ import annotations

import string
from typing import Final, NamedTuple

from couchestor_gateway.protocol import header_syntax, s3_error

BOUNDARY_BYTES_MAX: Final = 70
_CONTENT_TYPE_CHARACTERS_MAX: Final = 512
_BOUNDARY_CHARACTERS: Final = string.ascii_letters + string.digits + "'()+_,-./:=? "
_PLAIN_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})


class PartHead(NamedTuple):
    """What a part's headers say of it."""

    name: str
    filename: str
    """As sent, possibly with a path; empty where the client gives none."""


def malformed(reason: str) -> s3_error.S3Error:
    """The refusal of a form that breaks the format."""
    return s3_error.make(
        "MalformedPOSTRequest",
        f"The body of your POST request is not well-formed multipart/form-data: {reason}.",
    )


def is_form(content_type: str) -> bool:
    """Whether a request with that Content-Type posts a form that can hold a file."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def boundary_of(content_type: str) -> bytes:
    """The boundary that a form's Content-Type announces.

    Raises:
        S3Error: MalformedPOSTRequest when there is none, or one that cannot be.
    """
    if len(content_type) > _CONTENT_TYPE_CHARACTERS_MAX:
        raise malformed("its Content-Type is too long")
    boundary = _parameters(content_type.partition(";")[2]).get("boundary", "")
    if (
        not 1 <= len(boundary) <= BOUNDARY_BYTES_MAX
        or boundary.strip(_BOUNDARY_CHARACTERS)
        or boundary.endswith(" ")
    ):
        raise malformed(
            "the Content-Type announces no boundary of 1 to"
            f" {BOUNDARY_BYTES_MAX} letters, digits and signs"
        )
    return boundary.encode("ascii")


def part_head(block: bytes) -> PartHead:
    """What a part's headers say, given without the empty line that ends them.

    Raises:
        S3Error: MalformedPOSTRequest, NotImplemented for data in a transfer encoding: no browser
            sends any, and storing it encoded would store something else.
    """
    headers = _headers(block)
    disposition = headers.get("content-disposition", "")
    kind, _, parameters = disposition.partition(";")
    if kind.strip().lower() != "form-data":
        raise malformed("a part has no Content-Disposition: form-data")
    encoding = headers.get("content-transfer-encoding", "8bit")
    if encoding.lower() not in _PLAIN_ENCODINGS:
        raise s3_error.make(
            "NotImplemented",
            f"The Content-Transfer-Encoding {encoding[:64]} of a form's part is not implemented;"
            " send its bytes as they are.",
        )
    values = _parameters(parameters)
    if not values.get("name"):
        raise malformed("a part has no name")
    return PartHead(values["name"], values.get("filename", ""))


def _headers(block: bytes) -> dict[str, str]:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise malformed("the headers of a part are not UTF-8") from exc
    headers: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, separator, value = line.partition(":")
        name = name.lower()
        if not separator or not header_syntax.is_name(name):
            raise malformed("a part has a line among its headers that is none")
        if any(character < " " and character != "\t" for character in value):
            raise malformed("a header of a part holds a control character")
        if name in headers:
            raise malformed(f"a part has the header {name[:64]} twice")
        headers[name] = value.strip(" \t")
    return headers


def _parameters(text: str) -> dict[str, str]:
    """``name=value`` pairs between semicolons, names in lower case.

    In quotes only ``\\"`` is an escape: browsers send the backslashes of a path as they are.
    """
    found: dict[str, str] = {}
    at = 0
    while True:
        at = len(text) - len(text[at:].lstrip(" \t;"))
        if at >= len(text):
            return found
        equals = text.find("=", at)
        name = text[at:equals].rstrip(" \t").lower() if equals >= 0 else ""
        if not header_syntax.is_name(name):
            raise malformed("a parameter of a header is not written as name=value")
        if name in found:
            raise malformed(f"the parameter {name[:64]} of a header comes twice")
        at = equals + 1
        if text[at : at + 1] == '"':
            end = _closing_quote(text, at + 1)
            found[name] = text[at + 1 : end].replace('\\"', '"')
            at = end + 1
            if text[at:].lstrip(" \t")[:1] not in ("", ";"):
                raise malformed("something follows the closing quote in a header")
        else:
            end = text.find(";", at)
            end = len(text) if end < 0 else end
            found[name] = text[at:end].strip(" \t")
            at = end


def _closing_quote(text: str, start: int) -> int:
    at = text.find('"', start)
    while at > start and text[at - 1] == "\\":
        at = text.find('"', at + 1)
    if at < 0:
        raise malformed("a quote in a header is not closed")
    return at
