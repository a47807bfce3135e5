"""Readers of the values people write in settings. Each raises ValueError saying what is wrong."""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Final

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SIZE_FACTORS: Final = {
    "": 1,
    "b": 1,
    **{f"{p}{s}": 1 << 10 * i for i, p in enumerate("kmgt", 1) for s in ("", "i", "ib")},
    **{f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)},
}


def parse_size(text: str) -> int:
    """Bytes from ``4096``, ``64MiB``, ``64M`` (binary) or ``64MB`` (decimal)."""
    match = _SIZE.fullmatch(text.strip())
    factor = _SIZE_FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError("is not a size; write for example 4096, 128KiB or 64MiB")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def size(least: int, *, multiple: int = 1, zero: bool = False) -> Callable[[str], int]:
    """Parser of sizes of at least ``least`` bytes; ``zero`` allows 0 as "decide yourself"."""

    def parse(text: str) -> int:
        value = parse_size(text)
        if zero and value == 0:
            return 0
        if value < least:
            raise ValueError(f"is below the least possible, {least} bytes")
        if value % multiple:
            raise ValueError(f"is not a multiple of {multiple} bytes")
        return value

    return parse


def integer(least: int, most: int) -> Callable[[str], int]:
    """Parser of whole numbers within limits, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not least <= value <= most:
            raise ValueError(f"is not between {least} and {most}")
        return value

    return parse


def seconds(text: str) -> float:
    """Seconds, up to an hour."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        raise ValueError("is not a number of seconds") from None
    if not 0 <= value <= 3600:
        raise ValueError("is not between 0 and 3600 seconds")
    return value


def positive_seconds(text: str) -> float:
    """Seconds, more than none, up to an hour."""
    value = seconds(text)
    if value == 0:
        raise ValueError("must be more than 0 seconds")
    return value


def seconds_from(least: float) -> Callable[[str], float]:
    """Parser of seconds, at least ``least``, up to an hour."""

    def parse(text: str) -> float:
        value = seconds(text)
        if value < least:
            raise ValueError(f"is below the least possible, {least:g} seconds")
        return value

    return parse


def boolean(text: str) -> bool:
    """A yes or a no, in the usual spellings."""
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("is neither true nor false")


def choice(*choices: str) -> Callable[[str], str]:
    """Parser of one of a few words."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}" + suggestion(text, choices))
        return text.lower()

    return parse


def path(text: str) -> pathlib.Path:
    """An absolute path; ``~`` is a person's home."""
    if not text.strip() or "\0" in text:
        raise ValueError("is not a path")
    return pathlib.Path(text).expanduser().absolute()


def paths(text: str) -> tuple[pathlib.Path, ...]:
    """Paths between commas, one at least: nothing between two is a variable that was not set."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("names a folder by nothing; leave the setting out for the usual folders")
    return tuple(map(path, parts))


def targets(text: str) -> tuple[str, ...]:
    """Targets of notices between commas, each a name, ``=`` and a URL; nothing is none."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, url = part.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError("is not NAME=URL, the name of letters, digits, - and _")
        if name in found:
            raise ValueError(f"names the target {name} twice")
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
            raise ValueError(f"gives the target {name} no URL that begins with http:// or https://")
        found[name] = f"{name}={url}"
    return tuple(found.values())


def host(text: str) -> str:
    """A host name or address, IPv6 with or without brackets."""
    if not text or re.search(r"[\s/]", text):
        raise ValueError("is not a host name or address")
    try:
        # As looking it up does: a label may be too long, or empty.
        text.encode("idna")
    except UnicodeError:
        raise ValueError("is not a host name or address") from None
    return text.strip("[]")


def region(text: str) -> str:
    """A region's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise ValueError("is not a region; use lower-case letters, digits and hyphens")
    return text


def domain(text: str) -> str:
    """A domain name, or nothing."""
    if text and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        raise ValueError("is not a domain name")
    return text.lower()


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` when a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
