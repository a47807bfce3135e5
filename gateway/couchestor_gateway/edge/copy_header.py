"""What ``x-amz-copy-source`` names."""

from __future__ import annotations

from typing import Final, NamedTuple

from couchestor_gateway.edge import addressing

NAME: Final = "x-amz-copy-source"


class CopySource(NamedTuple):
    """The source of a copy; empty parts where the header names none."""

    bucket: str
    key: str
    raw_query: str


def parse(text: str) -> CopySource:
    """What a header names: ``/bucket/key?versionId=...``, percent-encoded, the first slash or not.

    Raises:
        S3Error: InvalidURI.
    """
    path, _, raw_query = text.partition("?")
    bucket, _, key = addressing.decode(path).removeprefix("/").partition("/")
    return CopySource(bucket, key, raw_query)
