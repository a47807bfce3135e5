"""Whether the log that a recovery would need is whole: while the node writes on.

A recovery loads the newest checkpoint and replays what was committed after it. Each batch names the
one before it, so the committed ones are those on the way back from the newest to the checkpoint:

    checkpoint S <- batch <- batch <- ... <- batch A, the newest in the index when the look began

What a process that died left unanswered is not on this way. Each batch on it was on all replicas
before the index showed it.
"""

from __future__ import annotations

from typing import NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, index_audit, log_damage, segment_scrub


class _Link(NamedTuple):
    previous: int
    lost_on: tuple[str, ...]
    """Devices that are there and do not show the batch."""


class LogChain:
    """The batches between the newest checkpoint and the end of the log at one moment.

    Make it before the segments are listed, and tell it of each batch that they hold.
    """

    def __init__(self, reader: index_port.IndexReader) -> None:
        self.newest_sequence = int(commit_log.applied_sequence(reader))
        """Of the last batch in the index when the look began."""
        self._base = log_damage.checkpointed_sequence(reader)
        self._links: dict[int, _Link] = {}

    def visit(self, record: media_records.SegmentRecord, found: segment_scrub.FoundBatch) -> None:
        """One batch of a segment."""
        if not self._base < found.sequence <= self.newest_sequence:
            return
        link = _Link(found.previous, tuple(record.members[i][0] for i in found.missing_on))
        known = self._links.get(found.sequence)
        # One that failed on a device was appended again, elsewhere.
        if known is None or len(link.lost_on) < len(known.lost_on):
            self._links[found.sequence] = link

    def findings(self, reader: index_port.IndexReader) -> list[index_audit.Finding]:
        """What a recovery would miss, or have on fewer devices than it should.

        Args:
            reader: Of now: what a newer checkpoint holds is missed by nobody.
        """
        base = max(self._base, log_damage.checkpointed_sequence(reader))
        sequence = self.newest_sequence
        lost: dict[str, list[int]] = {}
        found: list[index_audit.Finding] = []
        while sequence > base:
            link = self._links.get(sequence)
            if link is None:
                found.append(
                    index_audit.Finding(
                        f"batch {sequence} of the log is on no device that is there, and no "
                        "checkpoint holds it: bring missing devices back before the index is "
                        "lost; a checkpoint, which the running node takes by itself, makes up "
                        "for it",
                        True,
                        about="a gap in the log",
                    )
                )
                break
            for device_id in link.lost_on:
                lost.setdefault(device_id, []).append(sequence)
            sequence = link.previous
        for device_id, sequences in sorted(lost.items()):
            found.append(
                index_audit.Finding(
                    f"{len(sequences)} batches of the log behind the newest checkpoint do not "
                    f"verify on device {device_id}, the last of them batch {sequences[0]}: a "
                    "recovery takes them from the other replicas, and does without them once "
                    "the running node has taken a checkpoint",
                    True,
                    about=f"log on {device_id}",
                )
            )
        return found
