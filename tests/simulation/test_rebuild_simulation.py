"""Rebuild under crashes: at every device command of one, nothing gets worse and no zone leaks."""

from __future__ import annotations

import functools

import pytest
from tests.simulation import crashed_replacement

from couchestor_daemon.services import rebuild_order
from couchestor_domain import ids, units

pytestmark = [pytest.mark.may_block, pytest.mark.usefixtures("quiet")]


class Node(crashed_replacement.Node):
    """A node with one damaged or lost member."""

    def __init__(self, seed: int, *, lost: bool) -> None:
        self._lost = lost
        super().__init__(seed, devices_count=4, zone_bytes=256 * units.KIB)
        assert self.damaged

    async def fill(self) -> None:
        addresses = [await self.put(length) for length in (9_000, 40_000, 5_000, 30_000)]
        await self.seal()
        if self._lost:
            # One that holds a member; the log's segment may be on it, too.
            self.lose(ids.DeviceId(self.record().members[0][0]))
            self.start()
        else:
            await self.rot_and_queue(addresses[1], 1)


class SeveralGroups(crashed_replacement.Node):
    """A node with a damaged member in each of several groups, rebuilt at the same time."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, devices_count=4, zone_bytes=128 * units.KIB)
        assert len({group_id for group_id, _, _ in self.damaged}) == rebuild_order.GROUPS_AT_ONCE

    async def fill(self) -> None:
        addresses = []
        for _ in range(rebuild_order.GROUPS_AT_ONCE):
            addresses.append(await self.put(30_000))
            await self.seal()
        for number, address in enumerate(addresses):
            await self.rot_and_queue(address, number % 3)


DAMAGED = functools.partial(Node, lost=False)


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
def test_a_crash_at_every_command_of_a_rebuild(lost: bool, power_loss: bool) -> None:
    crashed_replacement.crash_everywhere(functools.partial(Node, lost=lost), power_loss=power_loss)


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
def test_a_crash_at_every_command_of_several_groups_at_once(power_loss: bool) -> None:
    crashed_replacement.crash_everywhere(SeveralGroups, power_loss=power_loss)


@pytest.mark.parametrize("second", [2, 5])
def test_power_lost_soon_after_a_crash_of_several(second: int) -> None:
    crashed_replacement.crash_everywhere(SeveralGroups, power_loss=False, second=second)


@pytest.mark.parametrize("second", range(1, 9))
def test_power_lost_soon_after_a_crash_of_a_rebuild(second: int) -> None:
    """A swap that was appended and never answered must not come back to zones given back."""
    crashed_replacement.crash_everywhere(DAMAGED, power_loss=False, second=second)


def test_canary_members_swapped_before_their_zones_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed_replacement.lose_flushes(monkeypatch)
    with pytest.raises(AssertionError, match="were whole before"):
        crashed_replacement.crash_everywhere(DAMAGED, power_loss=True)
