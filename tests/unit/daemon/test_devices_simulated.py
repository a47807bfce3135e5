"""The simulator keeps to its written fault model, and is a function of its seed."""

from __future__ import annotations

import pytest

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

BLOCK = units.BLOCK_BYTES
SECTOR = simulated_device.SECTOR_BYTES
Z0, Z1 = ids.ZoneIndex(0), ids.ZoneIndex(1)


def make_world(
    seed: int,
) -> tuple[simulated_device.SimulatedWorld, simulated_device.SimulatedDevice]:
    world = simulated_device.SimulatedWorld(seed)
    identity = device_port.DeviceIdentity(
        node_id=ids.NodeId("a" * 32),
        device_id=ids.DeviceId("b" * 32),
        label="d0",
        failure_domain="d0",
        zone_count=4,
        zone_capacity_bytes=64 * BLOCK,
        joined_epoch=1,
    )
    return world, world.add_device(identity)


def filled(value: int, blocks: int = 1) -> memoryview:
    return memoryview(bytes([value]) * (blocks * BLOCK))


def content(
    device: simulated_device.SimulatedDevice, zone: ids.ZoneIndex = Z0, blocks: int = 1
) -> bytes:
    buffer = memoryview(bytearray(blocks * BLOCK))
    device.read(zone, 0, buffer)
    return bytes(buffer)


def pointer(device: simulated_device.SimulatedDevice, zone: ids.ZoneIndex = Z0) -> int:
    return next((r.write_pointer_bytes for r in device.report() if r.zone_index == zone), 0)


def workload(device: simulated_device.SimulatedDevice) -> None:
    for turn in range(10):
        device.write(Z0, turn * 2 * BLOCK, filled(turn + 1, 2), durable=turn % 3 == 0)
        device.write(Z1, turn * BLOCK, filled(turn + 1), durable=False)
        if turn % 4 == 3:
            device.flush([Z1])


def run_to_crash(seed: int, crash_at: int, *, power_loss: bool) -> list[bytes]:
    world, device = make_world(seed)
    world.crash_at = crash_at
    with pytest.raises(simulated_device.SimulatedCrash):
        workload(device)
    world.restart(power_loss=power_loss)
    return [content(device, zone, 64) for zone in (Z0, Z1)]


@pytest.mark.parametrize("power_loss", [False, True])
def test_the_same_seed_gives_the_same_bytes(power_loss: bool) -> None:
    first = [run_to_crash(5, at, power_loss=power_loss) for at in range(1, 20)]
    assert first == [run_to_crash(5, at, power_loss=power_loss) for at in range(1, 20)]
    if power_loss:
        assert first != [run_to_crash(6, at, power_loss=True) for at in range(1, 20)]


def test_power_loss_spares_what_is_durable_and_shows_every_fate() -> None:
    fates = set()
    for seed in range(60):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=True)
        device.write(Z1, 0, filled(2), durable=False)
        device.flush([Z1])
        device.write(Z0, BLOCK, filled(3), durable=False)
        world.restart(power_loss=True)
        assert content(device) == b"\1" * BLOCK
        assert content(device, Z1) == b"\2" * BLOCK
        after = content(device, Z0, 2)[BLOCK:]
        sectors = {after[at : at + SECTOR] for at in range(0, BLOCK, SECTOR)}
        kept, zero = b"\3" * SECTOR, bytes(SECTOR)
        if pointer(device) == BLOCK:
            fates.add("dropped")
            assert sectors == {zero}
        elif sectors == {kept}:
            fates.add("kept")
        elif sectors == {zero}:
            fates.add("grown")
        else:
            fates.add("torn with zeros" if sectors <= {kept, zero} else "torn with garbage")
    assert fates == {"dropped", "kept", "grown", "torn with zeros", "torn with garbage"}


def test_unflushed_writes_are_lost_in_no_order() -> None:
    holes = 0
    for seed in range(40):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=False)
        device.write(Z0, BLOCK, filled(2), durable=True)
        world.restart(power_loss=True)
        assert content(device, Z0, 2)[BLOCK:] == b"\2" * BLOCK
        holes += content(device) == bytes(BLOCK)
    assert 0 < holes < 40


def test_a_process_crash_keeps_writes_but_they_stay_volatile() -> None:
    lost = 0
    for seed in range(30):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=False)
        world.crash_at = 2
        with pytest.raises(simulated_device.SimulatedCrash):
            device.write(Z0, BLOCK, filled(2, 3), durable=True)
        for command in (device.report, device.space, lambda device=device: device.flush([Z0])):
            with pytest.raises(simulated_device.SimulatedCrash):
                command()
        world.restart(power_loss=False)
        assert content(device) == b"\1" * BLOCK
        end = pointer(device)
        assert content(device, Z0, 4)[BLOCK:end] == b"\2" * (end - BLOCK)
        world.restart(power_loss=True)
        lost += content(device) != b"\1" * BLOCK
    assert lost > 0


def test_a_crashed_reset_happened_or_did_not() -> None:
    outcomes = set()
    for seed in range(20):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=True)
        world.crash_at = 2
        with pytest.raises(simulated_device.SimulatedCrash):
            device.reset(Z0)
        world.restart(power_loss=seed % 2 == 0)
        outcomes.add(content(device))
    assert outcomes == {bytes(BLOCK), b"\1" * BLOCK}


def test_a_finished_reset_survives_power_loss() -> None:
    for seed in range(10):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=False)
        device.reset(Z0)
        world.restart(power_loss=True)
        assert list(device.report()) == []


def test_a_crash_cannot_be_handled_as_an_exception() -> None:
    assert not issubclass(simulated_device.SimulatedCrash, Exception)


def test_death_ends_with_revival() -> None:
    _, device = make_world(1)
    device.write(Z0, 0, filled(1), durable=True)
    device.kill()
    with pytest.raises(errors.DeviceGoneError):
        content(device)
    device.revive()
    assert content(device) == b"\1" * BLOCK


def test_rot_changes_its_range_and_survives_power_loss() -> None:
    world, device = make_world(1)
    device.write(Z0, 0, filled(1), durable=True)
    device.corrupt(Z0, 10, 3)
    rotten = content(device)
    assert [at for at in range(BLOCK) if rotten[at] != 1] == [10, 11, 12]
    world.restart(power_loss=True)
    assert content(device) == rotten


def test_armed_failures_fire_once_and_change_nothing() -> None:
    world, device = make_world(2)
    device.fail_next_write()
    with pytest.raises(errors.DeviceIoError):
        device.write(Z0, 0, filled(1), durable=True)
    assert pointer(device) == 0
    device.write(Z0, 0, filled(1), durable=False)
    device.fail_next_read(2)
    for _ in range(2):
        with pytest.raises(errors.DeviceIoError):
            content(device)
    assert content(device) == b"\1" * BLOCK
    device.full = True
    with pytest.raises(errors.DeviceFullError):
        device.write(Z0, BLOCK, filled(1), durable=True)
    assert device.space().available_bytes == 0
    device.full = False
    lost = 0
    for seed in range(20):
        world, device = make_world(seed)
        device.write(Z0, 0, filled(1), durable=False)
        device.fail_next_flush()
        with pytest.raises(errors.DeviceIoError):
            device.flush([Z0])
        world.restart(power_loss=True)
        lost += content(device) != b"\1" * BLOCK
    assert lost > 0


def test_a_misdirected_write_reports_success_and_harms_another_place() -> None:
    _, device = make_world(3)
    device.write(Z1, 0, filled(1, 4), durable=True)
    device.misdirect_next_write()
    device.write(Z0, 0, filled(2), durable=True)
    assert pointer(device) == BLOCK
    assert content(device) == bytes(BLOCK)
    assert content(device, Z1, 4).count(b"\2" * BLOCK) == 1


def test_stalls_are_told_before_the_command() -> None:
    world, device = make_world(4)
    told: list[tuple[ids.DeviceId, float]] = []
    world.on_delay = lambda device_id, seconds: told.append((device_id, seconds))
    content(device)
    device.stall_seconds = 0.25
    content(device)
    assert told == [(device.identity.device_id, 0.25)]


def test_only_commands_that_change_the_device_count() -> None:
    world, device = make_world(4)
    device.write(Z0, 0, filled(1), durable=True)
    content(device)
    device.report()
    device.flush([Z0])
    device.reset(Z0)
    device.write_identity(device.identity)
    assert world.commands_count == 4
