"""Forms cut anywhere and filled with anything, against a reading of the whole form at once."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from couchestor_gateway.protocol import form_data, form_headers, post_policy, s3_error

BOUNDARY = b"xyz"
FILE = b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
FIELD = b'Content-Disposition: form-data; name="k"\r\n\r\n'
_DELIMITER = re.compile(rb"\r\n--xyz(?:(--)[ \t]{0,16}(?:\r\n|\r?\Z)|[ \t]{0,16}\r\n)")

_Read = tuple[list[tuple[str, str]], bytes]

_tokens = st.lists(
    st.sampled_from(
        [
            b"\r\n", b"\r", b"\n", b"--xyz", b"--", b"-", b"xyz", b"data", b" ", b"\t",
            b"\r\n--xyz\r\n", b"\r\n--xyz--\r\n", b"\r\n--xyz--", b"\r\n--xy",
            FILE, FIELD, FIELD[:-4], b"\r\n--xyz\r\n" + FILE, b"\r\n--xyz\r\n" + FIELD,
        ]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def _model(form: bytes) -> _Read | None:
    """What a form holds; None where it is none. Looks at all of it at once."""
    text = b"\r\n" + form
    fields: list[tuple[str, str]] = []
    file: bytes | None = None
    found = _DELIMITER.search(text)
    while found is not None and not found[1]:
        head_end = text.find(b"\r\n\r\n", found.end())
        head = text[found.end() : head_end]
        if head_end < 0 or head not in (FILE[:-4], FIELD[:-4]):
            return None
        found = _DELIMITER.search(text, head_end + 2)
        if found is None:
            return None
        data = text[head_end + 4 : max(found.start(), head_end + 4)]
        if head == FIELD[:-4]:
            if file is None:
                fields.append(("k", data.decode()))
        elif file is not None:
            return None
        else:
            file = data
    if found is None or file is None:
        return None
    return fields, file


def _parsed(form: bytes, cuts: list[int]) -> _Read | None:
    parser = form_data.FormParser(BOUNDARY)
    edges = [0, *sorted(min(cut, len(form)) for cut in cuts), len(form)]
    file = b""
    try:
        for start, stop in itertools.pairwise(edges):
            pieces = parser.feed(form[start:stop])
            assert parser.in_file or not pieces
            file += b"".join(map(bytes, pieces))
        file += b"".join(map(bytes, parser.close()))
    except s3_error.S3Error:
        return None
    most = max(0, len(form) - parser.file_start_bytes - parser.closing_bytes_min)
    assert len(file) <= most
    return [(name, value) for name, value in parser.fields], file


@settings(max_examples=400, deadline=None)
@given(form=_tokens, cuts=st.lists(st.integers(0, 400), max_size=6))
@example(form=b"--xyz\r\n" + FILE + b"--xyz--", cuts=[])
@example(form=b"--xyz\r\n" + FILE + b"\r\n--xyz--\r", cuts=[])
def test_any_form_cut_anywhere_reads_as_it_does_whole(form: bytes, cuts: list[int]) -> None:
    assert _parsed(form, cuts) == _model(form)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=64) | _tokens, after=st.sampled_from([b"", b"\r\n", b"\r\nrest"]))
def test_a_form_cut_at_every_byte_reads_as_it_does_whole(data: bytes, after: bytes) -> None:
    form = b"--xyz\r\n" + FIELD + b"v\r\n--xyz\r\n" + FILE + data + b"\r\n--xyz--" + after
    assert _parsed(form, list(range(len(form)))) == _parsed(form, []) == _model(form)


@settings(max_examples=200, deadline=None)
@given(
    block=st.binary(max_size=80)
    | st.text(':;="\\ \r\nContent-Dispositionformdtame*').map(str.encode)
)
def test_heads_of_parts_only_raise_s3_errors(block: bytes) -> None:
    with contextlib.suppress(s3_error.S3Error):
        head = form_headers.part_head(block)
        assert head.name
    with contextlib.suppress(s3_error.S3Error):
        assert form_headers.boundary_of(block.decode("latin-1"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("$eqk", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["expiration", "conditions", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(conditions=_json)
def test_policies_of_anything_only_raise_s3_errors(conditions: object) -> None:
    document = {"expiration": "2026-11-29T12:00:00Z", "conditions": conditions}
    encoded = base64.b64encode(json.dumps(document).encode()).decode()
    with contextlib.suppress(s3_error.S3Error):
        policy = post_policy.parse(encoded)
        policy.check({"key": "k"}, now_ns=0)
