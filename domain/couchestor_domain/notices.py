"""What targets are told of changes to objects: who wants to know, of what, and what it is.

An event is named as S3 names it, without the service: ``ObjectCreated:Put``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

CREATED_PUT: Final = "ObjectCreated:Put"
CREATED_POST: Final = "ObjectCreated:Post"
CREATED_COPY: Final = "ObjectCreated:Copy"
CREATED_UPLOAD: Final = "ObjectCreated:CompleteMultipartUpload"
REMOVED: Final = "ObjectRemoved:Delete"
MARKED: Final = "ObjectRemoved:DeleteMarkerCreated"
TAGS_PUT: Final = "ObjectTagging:Put"
TAGS_DELETED: Final = "ObjectTagging:Delete"
ACL_PUT: Final = "ObjectAcl:Put"

EVENTS: Final = (
    *(CREATED_PUT, CREATED_POST, CREATED_COPY, CREATED_UPLOAD),
    *(REMOVED, MARKED, TAGS_PUT, TAGS_DELETED, ACL_PUT),
)
"""Every event that this store causes."""

TARGET_CHARACTERS_MAX: Final = 64


class Interest(NamedTuple):
    """Who wants to know of an event."""

    target: str
    """Name of it: letters, digits, ``-`` and ``_``, at most ``TARGET_CHARACTERS_MAX``."""
    configuration_id: str
    """Of the bucket's configuration that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The request that changes an object."""

    requester: str
    """The canonical id; empty: nobody signed it."""
    source_ip: str
    request_id: str
    host_id: str
    region: str
    bucket_owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Who is to be told of a change once it is made.

    Whether a deletion leaves a marker shows only when it is made: so there may be several events,
    one of which will have been it.
    """

    cause: Cause
    interests: Mapping[str, tuple[Interest, ...]]
    """By event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A change that was made, for one target."""

    sequence: int
    """Greater than that of every earlier notice of this node."""
    target: str
    configuration_id: str
    event: str
    time_ns: int
    """Wall clock at commit, since the Unix epoch."""
    cause: Cause
    bucket: str
    key: str
    size_bytes: int | None = None
    """None where the object is gone, or is what it was."""
    etag: str = ""
    version_id: str = ""
    """Empty: the bucket never had versioning."""
