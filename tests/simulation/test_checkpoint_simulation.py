"""Checkpoints under crashes: at every device command of one, nothing is lost and no zone leaks."""

from __future__ import annotations

import log_node
import pytest

from couchestor_daemon.adapters import simulated_device


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
