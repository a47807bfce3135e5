"""Forms taken apart: what is file, what is field, and what is refused."""

from __future__ import annotations

import tracemalloc

import pytest

from couchestor_gateway.protocol import form_data, form_headers, s3_error

BOUNDARY = b"xyz"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.txt"'
KEY = b'Content-Disposition: form-data; name="key"'


def _form(*parts: tuple[bytes, bytes], end: bytes = b"--\r\n", preamble: bytes = b"") -> bytes:
    written = [b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY, head, data) for head, data in parts]
    return preamble + b"".join(written) + b"--" + BOUNDARY + end


def _read(form: bytes, *, step: int = 1 << 20) -> tuple[form_data.FormParser, bytes]:
    """The parser at the end, and the file; the parser may not hold much of it back."""
    parser = form_data.FormParser(BOUNDARY)
    got = bytearray()
    for start in range(0, len(form), step):
        for piece in parser.feed(form[start : start + step]):
            got += piece
    for piece in parser.close():
        got += piece
    return parser, bytes(got)


def _code(form: bytes, step: int = 1 << 20) -> str:
    with pytest.raises(s3_error.S3Error) as failure:
        _read(form, step=step)
    return failure.value.code


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\r",
        b"\r\n",
        b"\r\n--",
        b"\r\n--xy",
        b"\r\n--xyz1\r\n",
        b"\r\n--xyz-\r\n",
        b"\r\n--xyz--1\r\n",
        b"\r\n--xyz \t x",
        b"\r\n--xyz" + b" " * 40 + b"\r\n",
        b"\r\r\n\r\n--xyzxyz\r\n\r",
        b"--xyzz",
        b"\n--xyz\n",
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        b"--\r\n",
        b"--",
        b"-- \t\r\n",
        b"--\r\n\r\nepilogue --xyz",
        b'\r\nContent-Disposition: form-data; name="submit"\r\n\r\nUpload\r\n--xyz--\r\n',
    ],
)
def test_the_file_is_what_stands_between_whole_delimiters(
    data: bytes, end: bytes, step: int
) -> None:
    form = _form((KEY, b"k"), (FILE, data), end=end)
    parser, got = _read(form, step=step)
    assert got == data
    assert parser.fields == [("key", "k")]
    assert parser.filename == "a.txt"
    assert form[parser.file_start_bytes :].startswith(data)
    assert len(data) <= len(form) - parser.file_start_bytes - parser.closing_bytes_min


def test_a_preamble_is_ignored_and_a_form_may_begin_with_an_empty_line() -> None:
    for preamble in (b"\r\n", b"This is a form.\r\n", b"--xy\r\n"):
        assert _read(_form((KEY, b"k"), (FILE, b"data"), preamble=preamble))[1] == b"data"


def test_a_part_without_data_ends_where_its_headers_end() -> None:
    form = b"--xyz\r\n" + KEY + b"\r\n\r\n--xyz\r\n" + FILE + b"\r\n\r\n--xyz--\r\n"
    for step in (1, len(form)):
        parser, got = _read(form, step=step)
        assert got == b""
        assert parser.fields == [("key", "")]


def test_fields_may_carry_filenames_and_files_none() -> None:
    form = _form(
        (b'content-disposition:form-data;name="key";filename="key"', b"k"),
        (b"CONTENT-DISPOSITION: Form-Data; NAME=File", b"data"),
    )
    parser, got = _read(form)
    assert (parser.fields, parser.filename, got) == ([("key", "k")], "", b"data")


@pytest.mark.parametrize(
    ("written", "filename"),
    [
        (b'filename="a;b=c.txt"', "a;b=c.txt"),
        (rb'filename="a\"b.txt"', 'a"b.txt'),
        (rb'filename="C:\new\text.txt"', r"C:\new\text.txt"),
        (b'filename="%22.txt"', "%22.txt"),
        ('filename="Größe.txt"'.encode(), "Größe.txt"),
        (b"filename=plain.txt", "plain.txt"),
        (b'filename=""', ""),
        (b'filename="a" ; size=1', "a"),
    ],
)
def test_names_of_files(written: bytes, filename: str) -> None:
    head = b'Content-Disposition: form-data; name="file"; ' + written
    assert _read(_form((head, b"")))[0].filename == filename


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Content-Type: text/plain",
        b"Content-Disposition: form-data",
        b'Content-Disposition: form-data; name=""',
        b'Content-Disposition: form-data; filename="file"',
        b'Content-Disposition: attachment; name="file"',
        b'Content-Disposition: form-data; name="file',
        b'Content-Disposition: form-data; name="file"; name="key"',
        b'Content-Disposition: form-data; name="file" key',
        b'Content-Disposition: form-data; name="file"; lonely',
        b'Content-Disposition: form-data; name="fi\nle"',
        b'Content-Disposition: form-data; name="fi\0le"',
        b'Content-Disposition: form-data; name="\xff"',
        FILE + b"\r\n" + FILE,
        FILE + b"\r\n folded",
        FILE + b"\r\nno colon",
        FILE + b"\r\nbad name: x",
        FILE + b"\r\nX-Long: " + b"x" * form_data.PART_HEAD_BYTES_MAX,
    ],
)
def test_parts_whose_headers_break_the_format_are_refused(head: bytes) -> None:
    for step in (1 << 20, 11):
        assert _code(_form((head, b"data")), step) == "MalformedPOSTRequest"


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"no delimiter at all",
        b"--xyz\n" + KEY + b"\n\nk\n--xyz--\n",
        b"--xyzz\r\n" + FILE + b"\r\n\r\n--xyzz--\r\n",
        b"--xyz\r\n" + FILE,
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata",
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata\r\n--xy",
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata\r\n--xyz",
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata\r\n--xyz-",
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata\r\n--xyz--more",
        b"--xyz\r\n" + FILE + b"\r\n\r\ndata\r\n--xyz\r\nnext",
        b"--xyz\r\n" + KEY + b"\r\n\r\n\xff\xfe\r\n--xyz--\r\n",
    ],
)
def test_forms_without_their_delimiters_are_refused(form: bytes) -> None:
    for step in (1, 1 << 20):
        assert _code(form, step) == "MalformedPOSTRequest"


def test_after_an_error_nothing_is_taken() -> None:
    parser = form_data.FormParser(BOUNDARY)
    with pytest.raises(s3_error.S3Error):
        parser.feed(b"--xyz\r\n\r\n\r\n")
    assert not parser.in_file
    with pytest.raises(s3_error.S3Error, match="already"):
        parser.feed(_form((FILE, b"data")))


def test_a_form_has_one_file() -> None:
    assert _code(_form((KEY, b"k"))) == "InvalidArgument"
    twice = _form((KEY, b"k"), (FILE, b"one"), (FILE, b"two"))
    for step in (1, 1 << 20):
        assert _code(twice, step) == "IncorrectNumberOfFilesInPostRequest"


def test_what_is_not_file_is_bounded() -> None:
    field = b'Content-Disposition: form-data; name="f%d"'
    large = b"x" * (form_data.FIELDS_BYTES_MAX - 4)
    parser, _ = _read(_form((field % 0, large), (field % 1, b""), (FILE, b"")))
    assert len(parser.fields) == 2
    for form in (
        _form((field % 0, large), (field % 10, b""), (FILE, b"")),
        _form((field % 0, b"x" * (form_data.FIELDS_BYTES_MAX + 1)), (FILE, b"")),
        _form(*((field % number, b"") for number in range(2000)), (FILE, b"")),
        _form((FILE, b""), preamble=b"x" * form_data.HEAD_BYTES_MAX + b"\r\n"),
    ):
        for step in (1000, 1 << 20):
            assert _code(form, step) == "MaxPostPreDataLengthExceeded"
    closed = b"--\r\n"
    ends = [closed + b"x" * (form_data.TAIL_BYTES_MAX + more) for more in (-11, -10)]
    assert _read(_form((FILE, b"data"), end=ends[0]))[1] == b"data"
    assert _code(_form((FILE, b"data"), end=ends[1])) == "InvalidRequest"
    after = b"\r\n%s\r\n\r\n%s\r\n--xyz--\r\n" % (KEY, b"x" * form_data.TAIL_BYTES_MAX)
    assert _code(_form((FILE, b"data"), end=after), 1000) == "InvalidRequest"


def test_data_in_a_transfer_encoding_is_refused() -> None:
    encoded = FILE + b"\r\nContent-Transfer-Encoding: base64"
    assert _code(_form((encoded, b"ZGF0YQ=="))) == "NotImplemented"
    plain = FILE + b"\r\nContent-Transfer-Encoding: Binary"
    assert _read(_form((plain, b"data")))[1] == b"data"


@pytest.mark.parametrize("data", [b"x", b"\r", b"\r\n", b"\r\n--xy", b"\r\n--xyz-x"])
def test_of_a_long_file_hardly_anything_is_held(data: bytes) -> None:
    piece = data * (30_000 // len(data))
    parser = form_data.FormParser(BOUNDARY)
    head, _, tail = _form((KEY, b"k"), (FILE, b"DATA")).partition(b"DATA")
    got = sum(map(len, parser.feed(head)))
    tracemalloc.start()
    for _ in range(12):
        got += sum(map(len, parser.feed(piece)))
    assert tracemalloc.get_traced_memory()[1] < 6 * len(piece)
    tracemalloc.stop()
    got += sum(map(len, parser.feed(tail)))
    assert got == 12 * len(piece)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data;boundary=----WebKitFormBoundaryX1", b"----WebKitFormBoundaryX1"),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    assert form_headers.is_form(content_type)
    assert form_headers.boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="a\rb"',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=ü",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; " + "x=1;" * 1000 + "boundary=a",
    ],
)
def test_boundaries_that_cannot_be(content_type: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        form_headers.boundary_of(content_type)
    assert failure.value.code == "MalformedPOSTRequest"


def test_what_is_no_form() -> None:
    for content_type in ("", "multipart/mixed; boundary=a", "multipart/form-datax", "text/plain"):
        assert not form_headers.is_form(content_type)
    assert form_headers.is_form("Multipart/Form-Data ;boundary=a")
