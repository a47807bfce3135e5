"""The HTTP contract of the node API: paths, headers, what each status means.

================================================  =====================  ==========================
request                                           body                   answers of success
================================================  =====================  ==========================
``GET /couchestor/node/v1/state``                                        200 NodeRecord; 304
``GET /couchestor/node/v1/shards?since=R&begun=B``                       200 ShardPage
``PUT /couchestor/node/v1/groups/STRIPE``         Assignment             201 taken, 200 as it was
``DELETE /couchestor/node/v1/groups/STRIPE?``                            204 released, or not there
``generation=G``
``PUT /couchestor/node/v1/encodings/VOLUME``      EncodingRequest        201 taken, 200 as it was:
                                                                         EncodingState
``GET /couchestor/node/v1/encodings/VOLUME``                             200 EncodingState
================================================  =====================  ==========================

Every request names the node that is meant (``Couchestor-Node``) and, where the node wants it, a
bearer token. The state carries its revision as a strong ETag; ``If-None-Match`` with it is answered
by 304 as long as nothing has changed. What was answered by 200, 201 or 204 is durable on the node.

Everything may be sent again. A PUT with the generation and the content that the node has changes
nothing, but that ``usable`` may become true and that shards which the node has lost are kept a zone
for again; one with a higher generation replaces what is there. Shards that a newer generation has
elsewhere stay as they are, of the generation that they were assigned by, until a DELETE says that
the group is whole at generation G: then those go that lie elsewhere in what the node goes by. It is
refused by a node that goes by a lower generation than G, since that cannot see it. A group that its
writer has sealed is not given to it again.

A member takes no write from a writer that goes by another generation of the group than it does
itself, and a writer counts nothing as written that not every member has taken: so a writer that was
away, and knows only of members that are no more, can lose nothing.

A refusal is a Complaint; an answer of another kind is none of a node.
"""

from __future__ import annotations

import enum
import urllib.parse
from dataclasses import dataclass
from typing import Final

from couchestor_domain import units
from couchestor_domain.node_api import fields

ROOT: Final = "/couchestor/node/v1"
STATE_PATH: Final = f"{ROOT}/state"
SHARDS_PATH: Final = f"{ROOT}/shards"
GROUPS_PATH: Final = f"{ROOT}/groups"
ENCODINGS_PATH: Final = f"{ROOT}/encodings"
NODE_HEADER: Final = "Couchestor-Node"
CONTENT_TYPE: Final = "application/json"
COMPLAINT_BYTES_MAX: Final = 64 * units.KIB


class Refusal(enum.Enum):
    """Why a node did nothing."""

    MALFORMED = "Malformed"
    """The request does not fit; it never will."""
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    UNKNOWN = "Unknown"
    """It has no such encoding, or no such path."""
    STALE_GENERATION = "StaleGeneration"
    """It has a higher one."""
    DIFFERENT_CONTENT = "DifferentContent"
    """It has that very generation with another content."""
    ZONE_TAKEN = "ZoneTaken"
    """The zone holds something else, or was never offered."""
    HOLDS_DATA = "HoldsData"
    """The node goes by a lower generation than that which is said to be whole."""
    SINCE_TOO_OLD = "SinceTooOld"
    """It no longer knows what was released since: begin at 0."""
    WRONG_NODE = "WrongNode"
    """Another node is meant."""
    NO_ROOM = "NoRoom"
    BUSY = "Busy"
    """Later: see Retry-After."""


STATUS_OF: Final = {
    Refusal.MALFORMED: 400,
    Refusal.UNAUTHORIZED: 401,
    Refusal.FORBIDDEN: 403,
    Refusal.UNKNOWN: 404,
    Refusal.STALE_GENERATION: 409,
    Refusal.DIFFERENT_CONTENT: 409,
    Refusal.ZONE_TAKEN: 409,
    Refusal.HOLDS_DATA: 409,
    Refusal.SINCE_TOO_OLD: 410,
    Refusal.WRONG_NODE: 421,
    Refusal.NO_ROOM: 507,
    Refusal.BUSY: 503,
}
"""The HTTP status of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """The body of a refusal."""

    refusal: Refusal
    message: str
    """For people: what is wrong, and what to do."""


def encode_complaint(complaint: Complaint) -> bytes:
    """As it is sent."""
    return fields.written(
        "Complaint", {"refusal": complaint.refusal.value, "message": complaint.message}
    )


def decode_complaint(body: bytes | bytearray) -> Complaint:
    """A refusal as another machine sent it.

    Raises:
        NodeRecordError: it is none of a node.
    """
    read = fields.opened(body, kind="Complaint", bytes_max=COMPLAINT_BYTES_MAX)
    found = Complaint(refusal=read.choice("refusal", Refusal), message=read.text("message"))
    read.end()
    return found


def shards_path(since: int, *, begun: int) -> str:
    """What changed after a revision; 0: everything.

    Args:
        begun: The node's revision when reading everything began, until its last page; else the same
            as ``since``. What was released up to it need not be told.
    """
    return f"{SHARDS_PATH}?since={since}&begun={begun}"


def group_path(stripe: str) -> str:
    """A stripe group."""
    return f"{GROUPS_PATH}/{urllib.parse.quote(stripe, safe='')}"


def release_path(stripe: str, *, generation: int) -> str:
    """A stripe group that is whole at a generation, so that shards of lower ones may go."""
    return f"{group_path(stripe)}?generation={generation}"


def encoding_path(volume: str) -> str:
    """A volume to encode."""
    return f"{ENCODINGS_PATH}/{urllib.parse.quote(volume, safe='')}"


def etag_of(revision: int) -> str:
    """Of the state at a revision."""
    return f'"{revision}"'
