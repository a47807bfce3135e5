"""The daemons of storage nodes, by the node API: see ``couchestor_domain.node_api.contract``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from couchestor_domain import errors
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record

_SINCE: Final = (contract.Refusal.STALE_GENERATION, contract.Refusal.SINCE_TOO_OLD)
_FOR_GOOD: Final = (
    contract.Refusal.MALFORMED,
    contract.Refusal.DIFFERENT_CONTENT,
    contract.Refusal.ZONE_TAKEN,
    contract.Refusal.HOLDS_DATA,
    contract.Refusal.NO_ROOM,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the daemon of a node answers."""

    node: str
    """Its name in Kubernetes, which every request names, too."""
    url: str
    """Scheme, host and port."""


class NodeClient(Protocol):
    """Asks one node at a time. Nothing is repeated in here, and nothing waits for long.

    Every method raises ``NodeUnreachableError`` where nobody answered in time: what was sent may
    have been done, or may yet be. ``NodeApiError`` where the answer is an error that may pass, or
    none of this node. Cancelling a call says as little.
    """

    async def state(self, endpoint: Endpoint) -> node_record.NodeRecord:
        """The node as it is now."""
        ...

    async def shards(self, endpoint: Endpoint, *, since: int, begun: int) -> node_record.ShardPage:
        """Shards that changed after a revision, the first that did first; 0: all there are.

        Args:
            begun: The node's revision when whoever asks began to read all there is, until that is
                read to its end; from then on the same as ``since``.

        Raises:
            VersionConflictError: the node does not know any more what was released since: forget
                what is known of its shards, and begin at 0.
        """
        ...

    async def assign(self, endpoint: Endpoint, wanted: assignment.Assignment) -> None:
        """Have the node go by a generation of a group; it does, durably, when this returns.

        Sent again it is the same. ``usable`` may become true within a generation.

        Raises:
            VersionConflictError: the node goes by a higher generation; nothing was done.
            AssignmentRefusedError: it will not, for the ``refusal`` in the context; nothing was
                done.
        """
        ...

    async def release(self, endpoint: Endpoint, stripe: str, *, generation: int) -> None:
        """Let the node go of shards that a group has elsewhere, since it is whole at a generation.

        Raises:
            AssignmentRefusedError: the node goes by a lower generation, so that it cannot see that
                they lie elsewhere: assign it this one first. Nothing was done.
        """
        ...

    async def encode(
        self, endpoint: Endpoint, request: encoding_request.EncodingRequest
    ) -> encoding_request.EncodingState:
        """Have the node encode a volume; it will, whatever happens to it, when this returns.

        Sent again it is the same, and tells how far that is.

        Raises:
            VersionConflictError: it was asked for a higher generation; nothing was done.
            AssignmentRefusedError: it will not; nothing was done.
        """
        ...

    async def encoding(
        self, endpoint: Endpoint, volume: str
    ) -> encoding_request.EncodingState | None:
        """How far a volume is; None: the node was never asked for it."""
        ...


def error_of(complaint: contract.Complaint, *, where: str) -> errors.CouchestorError:
    """What a node's refusal is to whoever asked.

    Args:
        where: Which node.
    """
    told = f"{where} refuses ({complaint.refusal.value}): {complaint.message}"
    if complaint.refusal in _SINCE:
        return errors.VersionConflictError(told, refusal=complaint.refusal)
    if complaint.refusal in _FOR_GOOD:
        return errors.AssignmentRefusedError(told, refusal=complaint.refusal)
    return errors.NodeApiError(told, refusal=complaint.refusal)
