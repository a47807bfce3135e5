"""Rebuild under crashes: at every device command of one, nothing gets worse and no zone leaks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import shard_node
from tests.simulation import virtual_loop

from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.services import commit_log, rebuild, replay
from couchestor_domain import errors, geometry, ids, units

SHAPE = geometry.StripeGeometry(2, 1)
ZONE_BYTES = 256 * units.KIB
RETRY_SECONDS = rebuild.LOOKS_PER_RETRY * rebuild.LOOK_SECONDS

pytestmark = pytest.mark.may_block


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Node(shard_node.ShardNode):
    """A node with one damaged or lost member, whose process can be crashed and started again."""

    def __init__(self, seed: int, *, lost: bool) -> None:
        self.seconds = 0.0
        self.loops_count = 0
        self.seed = seed
        world = simulated_device.SimulatedWorld(seed)
        super().__init__(SHAPE, devices_count=4, zone_bytes=ZONE_BYTES, world=world)
        self.run_loop(self._fill(lost=lost))
        self.damaged = set(self.missing_shards())
        assert self.damaged

    def start(self) -> None:
        super().start()
        self.work = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=10.0,
            publisher=self,
            now_seconds=lambda: self.seconds,
            now_ns=lambda: int(self.seconds * units.NS_PER_SECOND),
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

    async def _fill(self, *, lost: bool) -> None:
        addresses = [await self.put(length) for length in (9_000, 40_000, 5_000, 30_000)]
        await self.seal()
        if lost:
            # One that holds a member; the log's segment may be on it, too.
            self.lose(ids.DeviceId(self.record().members[0][0]))
            self.start()
        else:
            await self.rot_and_queue(addresses[1], 1)

    async def rest(self) -> None:
        """Until the rebuild has nothing to do, a minute from now either."""
        for _ in range(4):
            while True:
                try:
                    if await self.work.step() >= rebuild.LOOK_SECONDS:
                        break
                except errors.CouchestorError:
                    self.seconds += RETRY_SECONDS
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
        """All is whole, nothing waits, nothing leaks."""
        assert self.missing_shards() == []
        assert self.repairs() == []
        self.run_loop(self.check_zones())
        self.run_loop(self.check_data())


def commands_of_one(*, lost: bool) -> int:
    node = Node(0, lost=lost)
    assert node.world is not None
    begin = node.world.commands_count
    node.run_loop(node.rest())
    node.check()
    return node.world.commands_count - begin


def crash_everywhere(*, lost: bool, power_loss: bool) -> None:
    for number in range(1, commands_of_one(lost=lost) + 1):
        node = Node(number, lost=lost)
        assert node.world is not None
        node.world.crash_at = node.world.commands_count + number
        # The last command may have been answered as if nothing had happened.
        with contextlib.suppress(simulated_device.SimulatedCrash):
            node.run_loop(node.rest())
        try:
            node.restart(power_loss=power_loss)
            worse = set(node.missing_shards()) - node.damaged
            assert not worse, f"{worse} were whole before the rebuild"
            node.run_loop(node.rest())
            node.check()
        except BaseException as exc:
            exc.add_note(f"crash at command {number} of the rebuild")
            raise


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
def test_a_crash_at_every_command_of_a_rebuild(lost: bool, power_loss: bool) -> None:
    crash_everywhere(lost=lost, power_loss=power_loss)


@pytest.mark.parametrize("second", range(1, 9))
def test_power_lost_soon_after_a_crash_of_a_rebuild(second: int) -> None:
    """A swap that was appended and never answered must not come back to zones given back."""
    for number in range(1, commands_of_one(lost=False) + 1):
        node = Node(number * 100 + second, lost=False)
        assert node.world is not None
        node.world.crash_at = node.world.commands_count + number
        with contextlib.suppress(simulated_device.SimulatedCrash):
            node.run_loop(node.rest())
        try:
            node.restart(power_loss=False)
            node.world.crash_at = node.world.commands_count + second
            with contextlib.suppress(simulated_device.SimulatedCrash):
                node.run_loop(node.rest())
            node.restart(power_loss=True)
            worse = set(node.missing_shards()) - node.damaged
            assert not worse, f"{worse} were whole before the rebuild"
            node.run_loop(node.rest())
            node.check()
        except BaseException as exc:
            exc.add_note(f"crash at command {number}, power loss {second} commands later")
            raise


def test_canary_members_swapped_before_their_zones_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_flush(self: inline_media.InlineMedia, zones: object) -> None:
        """Nothing."""

    monkeypatch.setattr(inline_media.InlineMedia, "flush", no_flush)
    with pytest.raises(AssertionError, match="were whole before the rebuild"):
        crash_everywhere(lost=False, power_loss=True)
