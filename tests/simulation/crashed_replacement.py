"""Members of a group being replaced, and a crash at every device command of that."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import shard_node
from tests.simulation import virtual_loop

from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.services import background, commit_log, rebuild, replay
from couchestor_domain import errors, geometry, units

SHAPE = geometry.StripeGeometry(2, 1)


class Node(shard_node.ShardNode, abc.ABC):
    """A node with something to replace, whose process can be crashed and started again."""

    def __init__(self, seed: int, *, devices_count: int, zone_bytes: int) -> None:
        self.seconds = 0.0
        self.loops_count = 0
        self.seed = seed
        super().__init__(
            SHAPE,
            devices_count=devices_count,
            zone_bytes=zone_bytes,
            world=simulated_device.SimulatedWorld(seed),
        )
        self.run_loop(self.fill())
        self.damaged = set(self.missing_shards())

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

    @abc.abstractmethod
    async def fill(self) -> None:
        """Write what is to be replaced."""

    def works(self) -> list[background.BackgroundWork]:
        """What replaces it comes last."""
        return [self.rebuild]

    def world_here(self) -> simulated_device.SimulatedWorld:
        """The world it lives in."""
        assert self.world is not None
        return self.world

    def run_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        """On a loop of its own; what a crash leaves of it is dropped."""
        world = self.world_here()
        self.loops_count += 1
        loop = virtual_loop.VirtualLoop(  # type: ignore[abstract]
            f"{self.seed}/{self.loops_count}"
        )
        try:
            loop.run(work, interrupted=lambda: world.crashed)
        except (virtual_loop.InterruptedLoop, simulated_device.SimulatedCrash):
            loop.abandon()
            raise simulated_device.SimulatedCrash from None

    async def rest(self) -> None:
        """Until there is nothing to do, a minute from now either."""
        for _ in range(4):
            while True:
                try:
                    waits = [await work.step() for work in self.works()]
                except errors.CouchestorError:
                    self.seconds += rebuild.LOOKS_PER_RETRY * rebuild.LOOK_SECONDS
                    continue
                if waits[-1] >= rebuild.LOOK_SECONDS:
                    break
            self.seconds += 60

    def restart(self, *, power_loss: bool) -> None:
        """What a start does after either kind of end."""
        self.world_here().restart(power_loss=power_loss)
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

    def rest_or_crash(self, *, after: int) -> None:
        """Until there is nothing to do, or ``after`` commands from now."""
        world = self.world_here()
        world.crash_at = world.commands_count + after
        # The last command may have been answered as if nothing had happened.
        with contextlib.suppress(simulated_device.SimulatedCrash):
            self.run_loop(self.rest())

    def check(self) -> None:
        """All is whole, nothing waits, nothing leaks."""
        assert self.missing_shards() == []
        assert self.repairs() == []
        self.run_loop(self.check_zones())
        self.run_loop(self.check_data())


Make = Callable[[int], Node]
"""A node of a seed."""


def commands_of_one(make: Make) -> int:
    """How many device commands it takes."""
    node = make(0)
    begin = node.world_here().commands_count
    node.run_loop(node.rest())
    node.check()
    return node.world_here().commands_count - begin


def crash_everywhere(make: Make, *, power_loss: bool, second: int = 0) -> None:
    """One run for each command: crash there, start, and go on to the end.

    Args:
        second: If not 0, the power goes so many commands after the first start.
    """
    for number in range(1, commands_of_one(make) + 1):
        node = make(100 * number + second)
        node.rest_or_crash(after=number)
        try:
            node.restart(power_loss=power_loss)
            if second:
                node.rest_or_crash(after=second)
                node.restart(power_loss=True)
            worse = set(node.missing_shards()) - node.damaged
            assert not worse, f"{worse} were whole before"
            node.run_loop(node.rest())
            node.check()
        except BaseException as exc:
            exc.add_note(f"crash at command {number}, the second one {second} commands later")
            raise


def lose_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug to be noticed: nothing that was written is durable."""

    async def no_flush(self: inline_media.InlineMedia, zones: object) -> None:
        """Nothing."""

    monkeypatch.setattr(inline_media.InlineMedia, "flush", no_flush)
