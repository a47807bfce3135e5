"""From request target and Host to bucket and key: path-style and virtual-hosted."""

from __future__ import annotations

import urllib.parse
from typing import NamedTuple

from couchestor_gateway.protocol import object_keys, s3_error


class Target(NamedTuple):
    """What a request addresses. Empty bucket: the service. Empty key: the bucket."""

    raw_path: str
    raw_query: str
    bucket: str
    key: str
    host_bucket: str = ""
    """The bucket again if the Host header names it."""


def resolve(target: str, host: str, domain: str | None) -> Target:
    """Split a request target.

    Args:
        target: As sent: ``/bucket/key?query``, possibly in absolute form.
        host: The Host header, with or without a port.
        domain: Base domain of virtual-hosted requests (lower case), or None for path-style only.

    Raises:
        S3Error: InvalidURI (not UTF-8 after decoding, or a bucket beyond ASCII in the host),
            KeyTooLongError.
    """
    if not target.startswith("/"):
        target = _origin_form(target)
    raw_path, _, raw_query = target.partition("?")
    path = raw_path[1:]
    if "%" in path or not path.isascii():
        path = decode(path)
    host_bucket = "" if domain is None else _bucket_of_host(host, domain)
    if not host_bucket.isascii():
        # It may hold bytes that are not UTF-8, which no key of the index is made of.
        raise s3_error.make("InvalidURI", "Couldn't parse the specified URI.")
    if host_bucket:
        bucket, key = host_bucket, path
    else:
        bucket, _, key = path.partition("/")
    if len(key) > object_keys.BYTES_MAX // 4 and len(key.encode()) > object_keys.BYTES_MAX:
        raise object_keys.too_long(len(key.encode()))
    return Target(raw_path, raw_query, bucket, key, host_bucket)


def decode(text: str) -> str:
    """Percent-decode a path strictly as UTF-8; ``+`` stays itself.

    Raises:
        S3Error: InvalidURI.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
        decoded = urllib.parse.unquote_to_bytes(raw).decode("utf-8")
    except UnicodeError as exc:
        raise s3_error.make("InvalidURI", "Couldn't parse the specified URI.") from exc
    if "\0" in decoded:
        raise s3_error.make("InvalidURI", "Object keys may not hold the NUL character.")
    return decoded


def parse_query(raw_query: str) -> dict[str, str]:
    """Query parameters, percent-decoded; the first of a repeated name wins.

    Raises:
        S3Error: InvalidURI when a name or value is not UTF-8.
    """
    query: dict[str, str] = {}
    for item in raw_query.split("&"):
        if not item:
            continue
        name, _, value = item.partition("=")
        if "%" in name or "+" in name or not name.isascii():
            name = decode(name.replace("+", " "))
        if "%" in value or "+" in value or not value.isascii():
            value = decode(value.replace("+", " "))
        query.setdefault(name, value)
    return query


def _origin_form(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise s3_error.make("InvalidURI", "Couldn't parse the specified URI.")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _bucket_of_host(host: str, domain: str) -> str:
    name = host.partition(":")[0].lower()
    if name.endswith(domain) and name[-len(domain) - 1 : -len(domain)] == ".":
        return name[: -len(domain) - 1]
    return ""
