"""Tags in headers and documents."""

from __future__ import annotations

import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_gateway.protocol import s3_error, tags, xml_reading

PLAIN = st.text(
    st.characters(categories=["L", "N", "Zs"]) | st.sampled_from("+-=._:/@"),
    min_size=1,
    max_size=20,
).filter(lambda text: not text.lower().startswith("aws:"))


@hypothesis.given(wanted=st.dictionaries(PLAIN, PLAIN | st.just(""), max_size=10))
def test_what_is_written_is_read(wanted: dict[str, str]) -> None:
    assert dict(tags.of_header(urllib.parse.urlencode(wanted))) == wanted
    pairs = xml_reading.tagging(tags.document(wanted), tags_max=10)
    assert dict(tags.checked(pairs, count_max=10)) == wanted


@pytest.mark.parametrize(
    "pairs",
    [
        [("", "v")],
        [("AWS:x", "v")],
        [("a", "1"), ("a", "1")],
        [("a\u202e", "1")],
        [("a", "\U0001f600")],
        [(str(number), "") for number in range(11)],
    ],
)
def test_what_breaks_the_rules_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        tags.checked(pairs, count_max=10)
    assert caught.value.code == "InvalidTag"


@pytest.mark.parametrize(
    "document",
    [
        b"<Tagging/>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Other><Key>k</Key><Value>v</Value></Other></TagSet></Tagging>",
        b"<Other><TagSet/></Other>",
    ],
)
def test_a_document_of_another_shape_is_refused(document: bytes) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        xml_reading.tagging(document, tags_max=10)
    assert caught.value.code == "MalformedXML"
