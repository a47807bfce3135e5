"""Checkpoints under crashes: at every device command of one, nothing is lost and no zone leaks.

COUCHESTOR_SIMULATION_SEEDS sets the number of seeds of the random lives.
"""

from __future__ import annotations

import contextlib
import os

import log_node
import pytest

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.services import replay
from couchestor_domain import errors

SEEDS_COUNT = int(os.environ.get("COUCHESTOR_SIMULATION_SEEDS", "150"))
LIVES_COUNT = 5


def node_before_checkpoint(seed: int, *, older: bool) -> log_node.LogNode:
    node = log_node.LogNode(seed)
    node.load(90, tag=b"a")
    if older:
        assert node.checkpoints.take() is not None
        node.load(20, tag=b"b")
    return node


def commands_of_one(*, older: bool) -> int:
    node = node_before_checkpoint(0, older=older)
    begin = node.world.commands_count
    record = node.checkpoints.take()
    assert record is not None
    assert len(record.parts) > 1, "several zones per copy, or the crash points say little"
    return node.world.commands_count - begin


@pytest.mark.parametrize("power_loss", [False, True], ids=["process crash", "power loss"])
@pytest.mark.parametrize("older", [False, True], ids=["first", "second"])
def test_a_crash_at_every_command_of_a_checkpoint(older: bool, power_loss: bool) -> None:
    for number in range(1, commands_of_one(older=older) + 1):
        node = node_before_checkpoint(number, older=older)
        node.world.crash_at = node.world.commands_count + number
        with pytest.raises(simulated_device.SimulatedCrash):
            node.checkpoints.take()
        try:
            if power_loss:
                node.lose_index(power_loss=True)
                node.logs[0].fence()
            else:
                node.index.crash()
                node.world.restart(power_loss=False)
                node.start()
            node.check_objects()
            node.check_zones()
            # As the maintenance process does at its start, then when the log has grown.
            node.checkpoints.release_leftovers()
            node.check_zones()
            node.load(5, tag=b"c")
            assert node.checkpoints.take() is not None
            node.check_zones()
            expected = node.content()
            report = node.lose_index(power_loss=power_loss)
            assert report.checkpoint_sequence > 0
            node.check_objects()
            assert node.content() == expected
        except BaseException as exc:
            exc.add_note(f"crash at command {number} of the checkpoint")
            raise


@pytest.mark.parametrize("block", range(3))
def test_random_lives_with_checkpoints_crashes_and_lost_devices(block: int) -> None:
    started_from_image = 0
    for seed in range(block, SEEDS_COUNT, 3):
        try:
            started_from_image += live(seed)
        except BaseException as exc:
            exc.add_note(f"simulation seed {seed}")
            raise
    assert started_from_image > SEEDS_COUNT // 6, "too few rebuilds start from a checkpoint"


def live(seed: int) -> int:
    """Several lives; how many began with a checkpoint."""
    node = log_node.LogNode(seed, zones_count=200)
    started_from_image = 0
    node.load(20, tag=b"first")
    for life in range(LIVES_COUNT):
        node.world.crash_at = node.world.commands_count + node.rng.randrange(1, 250)
        with pytest.raises(simulated_device.SimulatedCrash):
            work(node, life)
        power_loss = node.rng.random() < 0.7
        if power_loss:
            started_from_image += recover(node).checkpoint_sequence > 0
        else:
            node.index.crash()
            node.world.restart(power_loss=False)
            node.start()
        node.logs[0].fence()
        node.check_objects()
        node.checkpoints.release_leftovers()
        node.check_zones()
    return started_from_image


def recover(node: log_node.LogNode) -> replay.ReplayReport:
    """With up to two devices away, others each time, until a rebuild is not cut short itself."""
    while True:
        away = node.rng.sample(sorted(node.world.devices), node.rng.randrange(3))
        node.away = set(away)
        crash_after = node.rng.choice([None, node.rng.randrange(1, 12)])
        with contextlib.suppress(simulated_device.SimulatedCrash):
            return node.lose_index(power_loss=True, crash_after=crash_after)


def work(node: log_node.LogNode, life: int) -> None:
    """Until the crash: objects, and now and then a checkpoint."""
    for number in range(10_000):
        if node.rng.random() < 0.1:
            try:
                node.checkpoints.take()
            except errors.StoreReadOnlyError:
                assert len(node.away) > len(node.world.devices) - log_node.COPIES_COUNT
        key = b"%d-%d" % (life, number)
        node.put(key.ljust(200, b"x"), node.rng.randbytes(node.rng.randrange(9000)))
    raise AssertionError("the crash never came")
