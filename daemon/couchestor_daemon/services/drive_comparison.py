"""Which devices of a node are slow beside the others, in one window of time.

Pure. A device is compared with its peers in the same window and over commands of the same kind and
length, never with fixed numbers alone: what is slow depends on the load of the moment (Lu et al.,
"Perseus: A Fail-Slow Detection Framework for Cloud Storage Systems", FAST 2023), which its peers
have too (Panda et al., "IASO", ATC 2019). Where many are slow, none is: then it is the load, the
controller or the machine (Gunawi et al., "Fail-Slow at Scale", FAST 2018, has such cases).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final, NamedTuple

from couchestor_daemon.ports import drive_figures
from couchestor_domain import ids

SAMPLES_MIN: Final = 16
"""Commands of a device in a window, of one kind and size, before their mean means anything."""
LONG_SAMPLES_MIN: Final = 3
LONG_SHARE_MIN: Final = 0.25
"""Or so many that took this part of the window together: a device that is slow enough never does
sixteen, nor do others that wait for the same requests."""
PEERS_MIN: Final = 2


class Limits(NamedTuple):
    """From when on a device is slow."""

    ratio: float
    """Its mean over the median of those of its peers."""
    floor_seconds: float
    """Below such a mean nobody is slow, whatever the others do."""
    window_seconds: float
    slow_max: int
    """More devices than this that are slow at once are not slow: the node is."""


class Slowness(NamedTuple):
    """What stands out most in a window of one device."""

    slot: int
    mean_seconds: float
    peers_seconds: float
    """The median of the means of the others."""
    commands_count: int

    @property
    def ratio(self) -> float:
        """How many times as long as the others it takes."""
        return self.mean_seconds / max(self.peers_seconds, drive_figures.BOUNDS_SECONDS[0])

    def __str__(self) -> str:
        return (
            f"{drive_figures.slot_name(self.slot)} took {self.mean_seconds * 1e3:.1f} ms in the "
            f"mean, {self.peers_seconds * 1e3:.1f} ms on the other devices"
        )


class Comparison(NamedTuple):
    """A window."""

    slow: Mapping[ids.DeviceId, Slowness]
    not_slow: frozenset[ids.DeviceId]
    """Like the others, or held nobody up for long; of all further devices nothing can be said."""


NOTHING_SAID: Final = Comparison({}, frozenset())


def compare(window: Mapping[ids.DeviceId, drive_figures.Figures], limits: Limits) -> Comparison:
    """Judge every device that did enough in the window, and whose peers did."""
    slow: dict[ids.DeviceId, Slowness] = {}
    not_slow: set[ids.DeviceId] = set()
    present: set[ids.DeviceId] = set()
    """Those that did enough to be somebody's peers."""
    for slot in range(drive_figures.SLOTS_COUNT):
        done = {
            device_id: (figures.commands_count(slot), figures.mean_seconds(slot))
            for device_id, figures in window.items()
        }
        for device_id, (count, mean) in done.items():
            if not _is_enough(count, mean, limits):
                # Left out, rare long commands would add up over any number of windows.
                if count >= LONG_SAMPLES_MIN:
                    not_slow.add(device_id)
                continue
            needed_count = max(LONG_SAMPLES_MIN, min(SAMPLES_MIN, count // 2))
            peers = {
                other: others_mean
                for other, (others_count, others_mean) in done.items()
                if other != device_id and others_count >= needed_count
            }
            if len(peers) < PEERS_MIN:
                continue
            present |= peers.keys() | {device_id}
            usual = statistics.median_high(peers.values())
            if mean < limits.floor_seconds or mean < limits.ratio * usual:
                not_slow.add(device_id)
                continue
            found = Slowness(slot, mean, usual, count)
            if device_id not in slow or found.ratio > slow[device_id].ratio:
                slow[device_id] = found
    if len(slow) > limits.slow_max or 2 * len(slow) >= max(len(present), 1):
        return NOTHING_SAID
    return Comparison(slow, frozenset(not_slow - slow.keys()))


def _is_enough(count: int, mean_seconds: float, limits: Limits) -> bool:
    return count >= SAMPLES_MIN or (
        count >= LONG_SAMPLES_MIN and count * mean_seconds >= LONG_SHARE_MIN * limits.window_seconds
    )
