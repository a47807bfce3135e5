"""A member's move under crashes: at every device command, nothing gets worse and no zone leaks."""

from __future__ import annotations

import dataclasses

import pytest
from tests.simulation import crashed_replacement

from couchestor_daemon.services import background, member_moves
from couchestor_domain import ids, units

pytestmark = [pytest.mark.may_block, pytest.mark.usefixtures("quiet")]


class Node(crashed_replacement.Node):
    """A node with one retiring device; the rebuild beside its moves finds nothing to do."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, devices_count=5, zone_bytes=64 * units.KIB)
        assert not self.damaged

    def start(self) -> None:
        super().start()
        self.moves = member_moves.MemberMoves(
            self.tools,
            zones=self.rebuild.zones,
            wanted=crashed_replacement.SHAPE,
            reserve_zones_count=0,
            limits=member_moves.Limits(gap_percent=100, dead_percent=50),
            must_wait=lambda: False,
            publisher=self,
            now_seconds=lambda: self.seconds,
        )

    def works(self) -> list[background.BackgroundWork]:
        return [self.rebuild, self.moves]

    async def fill(self) -> None:
        for length in (9_000, 40_000, 5_000, 20_000):
            await self.put(length)
        await self.seal()
        self.leaving = ids.DeviceId(self.record().members[0][0])
        device = self.world_here().devices[self.leaving]
        device.write_identity(dataclasses.replace(device.identity, retiring=True))
        self.start()

    def check(self) -> None:
        super().check()
        assert str(self.leaving) not in dict(self.record().members)


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
def test_a_crash_at_every_command_of_a_move(power_loss: bool) -> None:
    crashed_replacement.crash_everywhere(Node, power_loss=power_loss)


@pytest.mark.parametrize("second", range(1, 7))
def test_power_lost_soon_after_a_crash_of_a_move(second: int) -> None:
    """A swap that was appended and never answered must not come back to a zone given back."""
    crashed_replacement.crash_everywhere(Node, power_loss=False, second=second)


def test_canary_a_member_swapped_before_its_copy_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed_replacement.lose_flushes(monkeypatch)
    with pytest.raises(AssertionError, match="were whole before"):
        crashed_replacement.crash_everywhere(Node, power_loss=True)
