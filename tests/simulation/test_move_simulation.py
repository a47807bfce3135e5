"""A member's move under crashes: at every device command, nothing gets worse and no zone leaks."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import shard_node
from tests.simulation import virtual_loop

from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.services import (
    commit_log,
    member_moves,
    rebuild,
    replay,
)
from couchestor_domain import errors, geometry, ids, units

SHAPE = geometry.StripeGeometry(2, 1)
ZONE_BYTES = 64 * units.KIB

pytestmark = pytest.mark.may_block


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Node(shard_node.ShardNode):
    """A node with one retiring device, whose process can be crashed and started again."""

    def __init__(self, seed: int) -> None:
        self.seconds = 0.0
        self.loops_count = 0
        self.seed = seed
        world = simulated_device.SimulatedWorld(seed)
        super().__init__(SHAPE, devices_count=5, zone_bytes=ZONE_BYTES, world=world)
        self.run_loop(self._fill())

    def start(self) -> None:
        super().start()
        self.rebuild = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=10.0,
            publisher=self,
            now_seconds=lambda: self.seconds,
            now_ns=lambda: int(self.seconds * units.NS_PER_SECOND),
        )
        self.work = member_moves.MemberMoves(
            self.tools,
            zones=self.rebuild.zones,
            wanted=SHAPE,
            reserve_zones_count=0,
            limits=member_moves.Limits(gap_percent=100, dead_percent=50),
            must_wait=lambda: False,
            publisher=self,
            now_seconds=lambda: self.seconds,
        )

    def run_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        """On a loop of its own; what a crash leaves of it is dropped."""
        assert self.world is not None
        self.loops_count += 1
        loop = virtual_loop.VirtualLoop(  # type: ignore[abstract]
            f"{self.seed}/{self.loops_count}"
        )
        try:
            loop.run(work, interrupted=lambda: self.world is not None and self.world.crashed)
        except (virtual_loop.InterruptedLoop, simulated_device.SimulatedCrash):
            loop.abandon()
            raise simulated_device.SimulatedCrash from None

    async def _fill(self) -> None:
        for length in (9_000, 40_000, 5_000, 20_000):
            await self.put(length)
        await self.seal()
        assert self.world is not None
        self.leaving = ids.DeviceId(self.record().members[0][0])
        device = self.world.devices[self.leaving]
        device.write_identity(dataclasses.replace(device.identity, retiring=True))
        self.start()

    async def rest(self) -> None:
        """Until there is nothing to move; the rebuild beside it finds nothing to do."""
        for _ in range(3):
            while True:
                try:
                    await self.rebuild.step()
                    if await self.work.step() >= member_moves.LOOK_SECONDS:
                        break
                except errors.CouchestorError:
                    self.seconds += member_moves.LOOKS_PER_RETRY * member_moves.LOOK_SECONDS
            self.seconds += 60

    def restart(self, *, power_loss: bool) -> None:
        """What a start does after either kind of end."""
        assert self.world is not None
        self.world.restart(power_loss=power_loss)
        if power_loss:
            self.index = memory_index.MemoryIndex()
            log = commit_log.CommitLog(
                writer="recovery",
                index=self.index,
                media=inline_media.InlineMedia(self.devices, lambda device_id, error: None),
                pool=self.pool,
                replicas_count=SHAPE.parity_shards + 1,
                publisher=self,
            )
            replay.rebuild(self.index, self.devices, log)
        else:
            self.index.crash()
        self.start()

    def check(self) -> None:
        """All is whole, the device is empty, nothing leaks."""
        assert self.missing_shards() == []
        assert self.repairs() == []
        assert str(self.leaving) not in dict(self.record().members)
        self.run_loop(self.check_zones())
        self.run_loop(self.check_data())


def commands_of_one() -> int:
    node = Node(0)
    assert node.world is not None
    begin = node.world.commands_count
    node.run_loop(node.rest())
    node.check()
    return node.world.commands_count - begin


def crash_everywhere(*, power_loss: bool, second: int = 0) -> None:
    """One run for each command: crash there, start, and go on to the end.

    Args:
        second: If not 0, the power goes so many commands after the first start.
    """
    for number in range(1, commands_of_one() + 1):
        node = Node(100 * number + second)
        assert node.world is not None
        node.world.crash_at = node.world.commands_count + number
        # The last command may have been answered as if nothing had happened.
        with contextlib.suppress(simulated_device.SimulatedCrash):
            node.run_loop(node.rest())
        try:
            node.restart(power_loss=power_loss)
            if second:
                node.world.crash_at = node.world.commands_count + second
                with contextlib.suppress(simulated_device.SimulatedCrash):
                    node.run_loop(node.rest())
                node.restart(power_loss=True)
            assert not node.missing_shards(), "all was whole before the move"
            node.run_loop(node.rest())
            node.check()
        except BaseException as exc:
            exc.add_note(f"crash at command {number}, the second one {second} commands later")
            raise


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
def test_a_crash_at_every_command_of_a_move(power_loss: bool) -> None:
    crash_everywhere(power_loss=power_loss)


@pytest.mark.parametrize("second", range(1, 7))
def test_power_lost_soon_after_a_crash_of_a_move(second: int) -> None:
    """A swap that was appended and never answered must not come back to a zone given back."""
    crash_everywhere(power_loss=False, second=second)


def test_canary_a_member_swapped_before_its_copy_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_flush(self: inline_media.InlineMedia, zones: object) -> None:
        """Nothing."""

    monkeypatch.setattr(inline_media.InlineMedia, "flush", no_flush)
    with pytest.raises(AssertionError, match="all was whole before the move"):
        crash_everywhere(power_loss=True)
