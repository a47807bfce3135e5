"""The canonical forms that Signature Version 4 signs: path, query and header values."""

from __future__ import annotations

import string
import urllib.parse
from typing import Final

_UNRESERVED: Final = string.ascii_letters + string.digits + "-._~"
_PATH_SAFE: Final = _UNRESERVED + "/"


def trimmed(value: str) -> str:
    """A header value without outer blanks, runs of spaces folded into one."""
    value = value.strip(" \t")
    if "  " in value:
        value = " ".join(part for part in value.split(" ") if part)
    return value


def path(raw_path: str) -> str:
    """Decoded and encoded once, so that every client's way of writing it gives one text."""
    if not raw_path.strip(_PATH_SAFE):
        return raw_path or "/"
    raw = raw_path.encode("utf-8", "surrogateescape")
    return urllib.parse.quote(urllib.parse.unquote_to_bytes(raw), safe="/-._~")


def parameters(raw_query: str) -> list[tuple[str, str]]:
    """Query parameters in order, decoded byte for byte (surrogates where not UTF-8)."""
    parameters: list[tuple[str, str]] = []
    for item in raw_query.split("&"):
        if item:
            name, _, value = item.partition("=")
            parameters.append((_decoded(name), _decoded(value)))
    return parameters


def _decoded(text: str) -> str:
    if not text.strip(_UNRESERVED):
        return text
    raw = text.replace("+", " ").encode("utf-8", "surrogateescape")
    return urllib.parse.unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


def _encoded(text: str) -> str:
    if not text.strip(_UNRESERVED):
        return text
    return urllib.parse.quote(text.encode("utf-8", "surrogateescape"), safe="-._~")


def query(parameters: list[tuple[str, str]]) -> str:
    """Parameters encoded, then sorted by encoded name and value."""
    encoded = sorted((_encoded(name), _encoded(value)) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in encoded)
