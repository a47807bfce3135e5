"""What is fuzzed: a parser as a function of bytes, with inputs to start from.

A target raises nothing but what is a bug: it takes the typed errors of its parser for answers, and
asserts whatever else holds, so that any driver can run it (``test_targets``, ``run_atheris``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import s3_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser, or a parser with its writer."""

    name: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    """Inputs that reach far."""
    tokens: Sequence[bytes] = ()
    """What its grammar is made of."""


@contextlib.contextmanager
def s3_refusals() -> Iterator[None]:
    """Takes an ``S3Error`` for an answer, which must be one that a client can read."""
    try:
        yield
    except s3_error.S3Error as exc:
        refusal = exc
    else:
        return
    reply = responses.failure(refusal, resource="/b/k", request_id="r", host_id="h", head=False)
    if refusal.status != 304:
        assert ET.fromstring(bytes(reply.body)).findtext("Code") == refusal.code


def text(data: bytes) -> str:
    """Bytes of a request's head as the HTTP server hands them on."""
    return data.decode("utf-8", "surrogateescape")


def headers(lines: Sequence[bytes]) -> dict[str, str]:
    """``name: value`` lines as headers, names in lower case; a name that comes again is dropped."""
    found: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(b":")
        if separator and name.isascii():
            found.setdefault(name.decode().strip().lower(), text(value).strip(" \t"))
    return found


def pieces(data: bytes, length: int) -> list[bytes]:
    """Data in pieces of a length; in one for a length of 0."""
    if length == 0:
        return [data]
    return [data[at : at + length] for at in range(0, len(data), length)]
