"""XML documents that every parser takes, and listings that name no key wrongly."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest

from couchestor_gateway.protocol import list_encoding, s3_error, xml_writing

EVERY = [chr(code) for code in itertools.chain(range(0xD800), range(0xE000, 0x10000, 1))]
EVERY += ["\U0001f600", "\U0010ffff"]


def test_what_is_writable_comes_back_and_the_rest_is_still_a_document() -> None:
    texts = ["".join(EVERY[at : at + 64]) for at in range(0, len(EVERY), 64)]
    texts += [c for c in EVERY if not xml_writing.is_writable(c)] + ["a\rb", "<&>\"'", "a\tb\nc"]
    xml = xml_writing.Document("Root", namespace="")
    for text in texts:
        xml.text("Text", text)
    read = [element.text or "" for element in ET.fromstring(xml.finish())]
    for text, found in zip(texts, read, strict=True):
        assert (found == text) is xml_writing.is_writable(text), ascii(text)
        assert len(found) == len(text)


@pytest.mark.parametrize("key", ["a\x01", "\ufffe", "\uffff", "\x1f", "\0"])
def test_a_listing_names_no_key_that_xml_cannot_hold(key: str) -> None:
    with pytest.raises(s3_error.S3Error, match="encoding-type=url"):
        list_encoding.key_encoder({})(key)
    assert list_encoding.key_encoder({"encoding-type": "url"})(key).isascii()


def test_other_keys_are_listed_as_they_are() -> None:
    for key in ("", "a b", "\t\n\r", "\x7f\x85\u2028", "\U0001f600"):
        assert list_encoding.key_encoder({})(key) == key
