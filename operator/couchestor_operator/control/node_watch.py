"""Which nodes are lost: never because of what is not known, and not before a grace is over.

Two witnesses have to agree for the whole grace: the daemon of the node cannot be reached, and
Kubernetes has no such node or has it not ready. A node that answers with an error is there.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

from couchestor_operator.control import storage_node


class Contact(enum.Enum):
    """What came of asking a node."""

    ANSWERED = enum.auto()
    """With its state, or with an error."""
    UNREACHABLE = enum.auto()
    NOT_ASKED = enum.auto()
    """It is left alone for a while since it failed, or has no address."""


class NodeWatch:
    """Remembers since when each node has been without both witnesses. Starts anew with a leader.

    Args:
        grace_seconds: From the first time that both are missing.
    """

    def __init__(self, *, grace_seconds: float) -> None:
        assert grace_seconds >= 0, grace_seconds
        self._grace_seconds = grace_seconds
        self._missing_since_seconds: dict[str, float] = {}

    def lost(
        self,
        names: Collection[str],
        *,
        known: Mapping[str, storage_node.StorageNode],
        contacts: Mapping[str, Contact],
        now_seconds: float,
    ) -> frozenset[str]:
        """Nodes that are lost as of now.

        Args:
            names: Every node that matters: selected ones, and those that shards lie on.
            known: By name, as Kubernetes has them now.
            contacts: What came of asking those that were asked.
            now_seconds: By a clock that never goes back.
        """
        found: set[str] = set()
        for name in names:
            node = known.get(name)
            if node is not None and node.declared_lost:
                found.add(name)
            elif self._is_missing(name, node, contacts.get(name, Contact.NOT_ASKED)):
                since_seconds = self._missing_since_seconds.setdefault(name, now_seconds)
                if now_seconds - since_seconds >= self._grace_seconds:
                    found.add(name)
            else:
                self._missing_since_seconds.pop(name, None)
        for name in self._missing_since_seconds.keys() - set(names):
            del self._missing_since_seconds[name]
        return frozenset(found)

    def _is_missing(
        self, name: str, node: storage_node.StorageNode | None, contact: Contact
    ) -> bool:
        if contact is Contact.ANSWERED or (node is not None and node.ready):
            return False
        # Not asked: as before, unless nobody knows where to ask.
        return (
            contact is Contact.UNREACHABLE
            or name in self._missing_since_seconds
            or node is None
            or not node.address
        )


def is_too_many(lost: Collection[str], names: Collection[str]) -> bool:
    """Whether so many nodes seem lost that it is rather the operator that is cut off."""
    return 2 * len(lost) > len(names)
