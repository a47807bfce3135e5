"""What a group survives, and how many of its shards one host and one zone may hold for that."""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from couchestor_domain import geometry, units
from couchestor_domain.stripe_placement import cluster


class Survives(enum.IntEnum):
    """The most that may be lost at once, whichever it is; each includes those before."""

    DEVICES = 1
    """Any m devices."""
    HOST = 2
    """Any host with all its devices."""
    ZONE = 3
    """Any zone with all its hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """How the shards of a group are spread."""

    survives: Survives
    host_shards_max: int
    """Most shards on one host."""
    zone_shards_max: int
    """Most shards in one zone."""

    @property
    def rank(self) -> tuple[int, int, int]:
        """Lower is better."""
        return (-self.survives, self.host_shards_max, self.zone_shards_max)


class Limits(NamedTuple):
    """Shards of one group that a host, and a zone, may hold."""

    per_host: int
    per_zone: int


def of_members(members: Iterable[cluster.Device], coding: geometry.StripeGeometry) -> Protection:
    """What a group with shards on these devices survives.

    Args:
        members: At least one; of a device that is not known any more nothing can be said.
    """
    placed = list(members)
    assert placed
    host_max = max(collections.Counter(device.host for device in placed).values())
    zone_max = max(collections.Counter(device.zone for device in placed).values())
    if zone_max <= coding.parity_shards:
        survives = Survives.ZONE
    elif host_max <= coding.parity_shards:
        survives = Survives.HOST
    else:
        survives = Survives.DEVICES
    return Protection(survives=survives, host_shards_max=host_max, zone_shards_max=zone_max)


class Tree:
    """How many shards of a group could lie under each host and zone, beside those that do."""

    def __init__(
        self, candidates: Iterable[cluster.Device], kept: Iterable[cluster.Device] = ()
    ) -> None:
        self._free: dict[str, dict[str, int]] = {}
        """Zone -> host -> devices that could take a shard."""
        for device in candidates:
            hosts = self._free.setdefault(device.zone, {})
            hosts[device.host] = hosts.get(device.host, 0) + 1
        staying = list(kept)
        self.kept_on_host: Mapping[str, int] = collections.Counter(each.host for each in staying)
        self.kept_in_zone: Mapping[str, int] = collections.Counter(each.zone for each in staying)

    def room_count(self, limits: Limits) -> int:
        """Shards more that could be placed within limits."""
        return sum(
            min(
                max(0, limits.per_zone - self.kept_in_zone.get(zone, 0)),
                sum(
                    min(free, max(0, limits.per_host - self.kept_on_host.get(host, 0)))
                    for host, free in hosts.items()
                ),
            )
            for zone, hosts in self._free.items()
        )

    def best_limits(self, wanted_count: int, coding: geometry.StripeGeometry) -> Limits | None:
        """The limits that protect best among those that leave room; None: no limits do.

        In this order: any zone may be lost, any host may be lost, fewest shards on one host, fewest
        in one zone. What lies beyond them already stays.
        """
        shards_count = coding.shards_count
        losable = coding.parity_shards
        per_host = self._least_per_host(wanted_count, losable, per_host_max=losable)
        if per_host is None:
            per_host = self._least_per_host(wanted_count, shards_count, per_host_max=shards_count)
        if per_host is None:
            return None
        for per_zone in range(units.ceil_div(wanted_count, len(self._free)), shards_count + 1):
            limits = Limits(per_host, per_zone)
            if self.room_count(limits) >= wanted_count:
                return limits
        raise AssertionError((wanted_count, per_host))

    def _least_per_host(self, wanted_count: int, per_zone: int, *, per_host_max: int) -> int | None:
        for per_host in range(1, per_host_max + 1):
            if self.room_count(Limits(per_host, per_zone)) >= wanted_count:
                return per_host
        return None
