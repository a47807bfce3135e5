"""Tags of objects and buckets: the rules, the header and the document.

Rules: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
"""

from __future__ import annotations

import unicodedata
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Final

from couchestor_domain import objects
from couchestor_gateway.protocol import s3_error, xml_writing

OBJECT_TAGS_MAX: Final = 10
BUCKET_TAGS_MAX: Final = 50
KEY_CHARACTERS_MAX: Final = 128
VALUE_CHARACTERS_MAX: Final = 256
_HEADER_BYTES_MAX: Final = 16 << 10
_SIGNS: Final = frozenset(" +-=._:/@")


def checked(pairs: Iterable[tuple[str, str]], *, count_max: int) -> Mapping[str, str]:
    """The tags of a request, by key.

    Raises:
        S3Error: InvalidTag for a key or value that breaks the rules, a key given twice, or too
            many.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        if not 1 <= len(key) <= KEY_CHARACTERS_MAX or not _is_plain(key):
            raise s3_error.make("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > VALUE_CHARACTERS_MAX or not _is_plain(value):
            raise s3_error.make("InvalidTag", "The TagValue you have provided is invalid")
        if key.lower().startswith("aws:"):
            raise s3_error.make("InvalidTag", "System tags cannot be added/updated by requester")
        if key in found:
            raise s3_error.make(
                "InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=key
            )
        found[key] = value
    if len(found) > count_max:
        raise s3_error.make("InvalidTag", f"Tags cannot be more than {count_max}")
    return dict(sorted(found.items())) or objects.EMPTY_MAP


def of_header(text: str | None) -> Mapping[str, str]:
    """The tags in an ``x-amz-tagging`` header, written as the query of a URL.

    Raises:
        S3Error: InvalidArgument for what is no such query; InvalidTag as ``checked``.
    """
    if not text:
        return objects.EMPTY_MAP
    pairs: list[tuple[str, str]] = []
    if len(text) <= _HEADER_BYTES_MAX:
        for item in text.split("&"):
            key, _, value = item.partition("=")
            try:
                pairs.append(
                    (
                        urllib.parse.unquote_plus(key, errors="strict"),
                        urllib.parse.unquote_plus(value, errors="strict"),
                    )
                )
            except UnicodeDecodeError:
                break
        else:
            return checked(pairs, count_max=OBJECT_TAGS_MAX)
    raise s3_error.make(
        "InvalidArgument",
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters"
        " without tag name duplicates.",
        ArgumentName="x-amz-tagging",
        ArgumentValue=text[:1024],
    )


def document(tags: Mapping[str, str]) -> bytes:
    """The answer to a question for tags."""
    xml = xml_writing.Document("Tagging").open("TagSet")
    for key, value in tags.items():
        xml.open("Tag").text("Key", key).text("Value", value).close("Tag")
    return xml.close("TagSet").finish()


def _is_plain(text: str) -> bool:
    """Whether it has only letters, digits, blanks and the signs that tags may have."""
    if text.isascii() and text.isalnum():
        return True
    return all(
        character in _SIGNS or unicodedata.category(character)[0] in "LNMZ" for character in text
    )
