"""What a simulated node is built of, and in what hurry it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from couchestor_daemon.services import destage, member_moves, reclaim, zone_grace
from couchestor_domain import geometry, ids, units

WORKERS_COUNT: Final = 2
POOL_BYTES: Final = 16 * units.MIB
LEASE_BYTES: Final = units.GIB
OPEN_GROUPS_MAX: Final = 2
PLACES_KEPT_SECONDS: Final = 10e-3
GRACE_SECONDS: Final = PLACES_KEPT_SECONDS * zone_grace.GRACE_PER_PLACES_KEPT
RELEASE_GRACE_SECONDS = GRACE_SECONDS
READS_ENDED_SECONDS: Final = 1e-3
CHECKPOINT_LOG_BYTES: Final = 96 * units.KIB
CHECKPOINT_SECONDS: Final = 2e-3
RETRY_SECONDS: Final = 2e-3
COMPRESSION_SAVING_PERCENT: Final = 10
"""The bodies of clients repeat themselves: some payloads save so much, others do not."""
DESTAGE_LIMITS: Final = destage.DestageLimits(log_bytes=0, age_seconds=1e-3, idle_seconds=2e-3)
RECLAIM_LIMITS: Final = reclaim.ReclaimLimits(dead_percent=20, free_percent=50)
MOVE_LIMITS: Final = member_moves.Limits(gap_percent=6, dead_percent=90)
"""What reclaim empties may be on the move, too."""
PACE_SECONDS_PER_BYTE: Final = 1e-9
POLL_FACTOR: Final = 2e-3
REBUILD_DELAY_SECONDS: Final = 10e-3
REBUILD_LOOK_SECONDS: Final = 2e-3
SCRUB_PERIOD_SECONDS: Final = 20e-3
ROOM_WAIT_SECONDS: Final = 10e-3
ROOM_POLL_SECONDS: Final = 0.2e-3
NODE_ID: Final = ids.NodeId("a" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a node is built of: small, so that zones fill and groups roll over within a run."""

    coding: geometry.StripeGeometry
    devices_count: int
    zone_count: int
    zone_bytes: int
    stripe_bytes: int
    journal_threshold_bytes: int
    reserve_zones_count: int

    @property
    def replicas_count(self) -> int:
        """Copies of the log."""
        return self.coding.parity_shards + 1
