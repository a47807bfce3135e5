"""Rules for other sites: what a configuration may say, and what its rules let in."""

from __future__ import annotations

import fnmatch
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_gateway.protocol import cors, s3_error

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def _document(*rules: str) -> bytes:
    inside = "".join(f"<CORSRule>{rule}</CORSRule>" for rule in rules)
    return f"<CORSConfiguration {_NAMESPACE}>{inside}</CORSConfiguration>".encode()


def _rule(origin: str = "*", method: str = "GET", more: str = "") -> str:
    return f"<AllowedOrigin>{origin}</AllowedOrigin><AllowedMethod>{method}</AllowedMethod>{more}"


def _rules(*rules: cors.Rule) -> cors.Rules:
    return cors.Rules(rules)


def test_a_configuration_is_told_as_it_was_put() -> None:
    rule = cors.Rule(
        rule_id="one & only",
        origins=("https://*.example.com", "http://x?y"),
        methods=("GET", "PUT"),
        allowed_headers=("x-amz-*", "Content-Type"),
        exposed_headers=("ETag", "x-amz-meta-a"),
        max_age_seconds=3000,
    )
    other = cors.Rule(origins=("*",), methods=("DELETE",))
    assert cors.parse(cors.write((rule, other))) == (rule, other)


@pytest.mark.parametrize(
    ("document", "code", "sentence"),
    [
        (b"", "MalformedXML", ""),
        (_document(), "MalformedXML", ""),
        (_document("<AllowedOrigin>*</AllowedOrigin>"), "MalformedXML", ""),
        (_document("<AllowedMethod>GET</AllowedMethod>"), "MalformedXML", ""),
        (_document(_rule(origin="")), "MalformedXML", ""),
        (_document(_rule(more="<MaxAgeSeconds>-1</MaxAgeSeconds>")), "MalformedXML", ""),
        (_document(_rule(more="<MaxAgeSeconds>4294967296</MaxAgeSeconds>")), "MalformedXML", ""),
        (_document(_rule(more="<MaxAgeSeconds>1</MaxAgeSeconds>" * 2)), "MalformedXML", ""),
        (_document(_rule(more="<Unheard>1</Unheard>")), "MalformedXML", ""),
        (_document(_rule(more=f"<ID>{'i' * 256}</ID>")), "InvalidArgument", "limit of 255"),
        (
            _document(_rule(method="OPTIONS")),
            "InvalidRequest",
            "Found unsupported HTTP method in CORS config. Unsupported method is OPTIONS",
        ),
        (_document(_rule(method="get")), "InvalidRequest", "Unsupported method is get"),
        (
            _document(_rule(origin="http://*.*")),
            "InvalidRequest",
            'AllowedOrigin "http://*.*" can not have more than one wildcard.',
        ),
        (
            _document(_rule(more="<AllowedHeader>*-*</AllowedHeader>")),
            "InvalidRequest",
            'AllowedHeader "*-*" can not have more than one wildcard.',
        ),
        (
            _document(_rule(more="<ExposeHeader>x-*</ExposeHeader>")),
            "InvalidRequest",
            'ExposeHeader "x-*" contains wildcard.',
        ),
        (
            _document(_rule(more="<ExposeHeader>a&#10;b: c</ExposeHeader>")),
            "InvalidRequest",
            "is not the name of a header",
        ),
        (
            _document(*[_rule()] * (cors.RULES_MAX + 1)),
            "InvalidRequest",
            "The number of CORS rules should not exceed allowed limit of 100 rules.",
        ),
        (_document(_rule(origin="o" * cors.DOCUMENT_BYTES_MAX)), "MalformedXML", ""),
    ],
)
def test_what_no_configuration_can_say(document: bytes, code: str, sentence: str) -> None:
    with pytest.raises(s3_error.S3Error) as failure:
        cors.parse(document)
    assert failure.value.code == code
    assert sentence in failure.value.message


def test_one_that_would_grow_too_long_is_not_kept() -> None:
    origins = "".join(f"<AllowedOrigin>{'&#34;' * 300}{n}</AllowedOrigin>" for n in range(40))
    rules = cors.parse(_document(f"{origins}<AllowedMethod>GET</AllowedMethod>"))
    with pytest.raises(s3_error.S3Error, match="longer than") as failure:
        cors.write(rules)
    assert failure.value.code == "InvalidRequest"


def test_the_first_rule_that_lets_a_request_in_answers() -> None:
    rules = _rules(
        cors.Rule(origins=("https://a.example",), methods=("PUT",), max_age_seconds=1),
        cors.Rule(
            origins=("https://*.example", "*suffix"),
            methods=("GET", "PUT"),
            allowed_headers=("x-amz-*", "Content-Type"),
            exposed_headers=("ETag", "x-amz-id-2"),
            max_age_seconds=2,
        ),
        cors.Rule(origins=("*",), methods=("GET",)),
    )
    assert rules.answer("https://a.example", "PUT") == {
        "Access-Control-Allow-Origin": "https://a.example",
        "Access-Control-Allow-Methods": "PUT",
        "Access-Control-Max-Age": "1",
        "Access-Control-Allow-Credentials": "true",
    }
    assert rules.answer("https://a.example", "PUT", "X-Amz-Date, content-type,x-amz-date") == {
        "Access-Control-Allow-Origin": "https://a.example",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Expose-Headers": "ETag, x-amz-id-2",
        "Access-Control-Max-Age": "2",
        "Access-Control-Allow-Headers": "x-amz-date, content-type",
        "Access-Control-Allow-Credentials": "true",
    }
    # What anybody may ask for, nobody asks for with credentials of its own.
    assert rules.answer("http://else", "GET") == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET",
    }
    assert rules.answer("http://else", "PUT") == {}
    assert rules.answer("http://else", "GET", "x-other") == {}
    assert rules.answer("", "DELETE") == {}


@pytest.mark.parametrize(
    ("pattern", "origin", "is_let_in"),
    [
        ("start*end", "startend", True),
        ("start*end", "start12end", True),
        ("start*end", "0start12end", False),
        ("start*end", "starend", False),
        ("aba*aba", "aba", False),
        ("*suffix", "suffix", True),
        ("prefix*", "prefix.suffix", True),
        ("http://a?c", "http://a?c", True),
        ("http://a?c", "http://abc", False),
        ("http://Host", "http://host", False),
    ],
)
def test_an_origin_has_one_wildcard(pattern: str, origin: str, is_let_in: bool) -> None:
    rules = _rules(cors.Rule(origins=(pattern,), methods=("GET",)))
    assert bool(rules.answer(origin, "GET")) is is_let_in


@hypothesis.given(
    pattern=st.text("ab*", max_size=6).filter(lambda text: text.count("*") <= 1),
    origin=st.text("ab", max_size=8),
)
def test_wildcards_match_as_those_of_shells_do(pattern: str, origin: str) -> None:
    rules = _rules(cors.Rule(origins=(pattern or "-",), methods=("GET",)))
    assert bool(rules.answer(origin, "GET")) is fnmatch.fnmatchcase(origin, pattern or "-")


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("http://\udcff", ""),
        ("http://a\tb", ""),
        ("h" * (cors.ORIGIN_CHARACTERS_MAX + 1), ""),
        ("http://a", "a" * (cors.HEADERS_CHARACTERS_MAX + 1)),
        ("http://a", ",".join(f"h{n}" for n in range(cors.HEADERS_MAX + 1))),
        ("http://a", "x y"),
    ],
)
def test_what_no_browser_sends_is_let_in_by_nothing(origin: str, headers: str) -> None:
    rules = _rules(cors.Rule(origins=("h*",), methods=("GET",), allowed_headers=("*",)))
    assert rules.answer(origin, "GET", headers) == {}


def test_the_worst_configuration_answers_the_worst_request_in_time() -> None:
    count = 19
    headers = tuple(f"{'a' * n}*b" for n in range(1, count))
    rule = cors.Rule(
        origins=tuple(f"{'a' * n}*b" for n in range(1, count)),
        methods=("GET",),
        allowed_headers=headers,
    )
    document = cors.write([rule] * 40)
    assert len(document) > cors.DOCUMENT_BYTES_MAX * 3 // 5
    rules = cors.Rules(cors.parse(document))
    asked = ",".join(f"{'a' * 12}{n:02x}b" for n in range(cors.HEADERS_MAX - 1)) + ",c"
    started = time.process_time()
    assert rules.answer("a" * (cors.ORIGIN_CHARACTERS_MAX - 1) + "b", "GET", asked) == {}
    assert time.process_time() - started < 0.5
