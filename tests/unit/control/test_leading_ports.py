"""Whoever does not hold the Lease reads and does not write, wherever it wakes up."""

from __future__ import annotations

import faulty_ports
import pytest
import tiering_stage

from couchestor_domain import errors
from couchestor_operator.adapters import system_clock
from couchestor_operator.services import leading_ports, migrator, tiering_pass


class Sleeper:
    """Holds the Lease for so many writes; then it has slept too long."""

    def __init__(self, writes_count: int) -> None:
        self.left_count = writes_count

    def is_leading(self) -> bool:
        """Asked before each write."""
        self.left_count -= 1
        return self.left_count >= 0


def _operator(stage: tiering_stage.Stage, sleeper: Sleeper) -> tiering_pass.TieringPass:
    line = faulty_ports.Line({})
    manager = leading_ports.LeadingVolumes(
        faulty_ports.FaultyVolumes(stage.memory, line), sleeper.is_leading
    )
    policies = leading_ports.LeadingPolicies(
        faulty_ports.FaultyPolicies(stage.policies, line), sleeper.is_leading
    )
    return tiering_pass.TieringPass(
        manager=manager,
        policies=policies,
        metrics=stage.heat,
        time=stage.clock,
        mover=migrator.Migrator(
            manager=manager,
            policies=policies,
            time=stage.clock,
            publisher=stage.heard,
            new_id=lambda: "of-the-sleeper",
        ),
        migrations_count_max=10,
    )


def _stage() -> tiering_stage.Stage:
    made = tiering_stage.Stage()
    made.policies.put(tiering_stage.POLICY, tiering_stage.rule())
    made.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    return made


def _seen(stage: tiering_stage.Stage) -> tuple[object, object]:
    return stage.memory.volume("pvc-0"), stage.policies.status(tiering_stage.POLICY)


async def test_at_no_write_of_a_migration_does_a_sleeper_go_on() -> None:
    writes_count = 0
    while True:
        stage = _stage()
        sleeper = Sleeper(writes_count)
        operator = _operator(stage, sleeper)
        for _ in range(tiering_stage.PASSES_COUNT_MAX):
            await operator.run()
            if sleeper.left_count < 0 or stage.outcomes():
                break
            await stage.settle()
        if stage.outcomes():
            break
        before = _seen(stage)
        await operator.run()
        assert _seen(stage) == before
        # Another one goes on from there.
        await stage.to_rest(stage.operator())
        assert stage.outcomes() == ["Completed"], writes_count
        writes_count += 1
    assert writes_count > 12


@pytest.mark.parametrize("method", ["add_replica", "remove_replica", "seal"])
async def test_a_command_says_why_nothing_was_done(method: str) -> None:
    ports = leading_ports.LeadingVolumes(_stage().memory, lambda: False)
    with pytest.raises(errors.LeaseLostError, match="nothing was done"):
        await getattr(ports, method)(None)


@pytest.mark.parametrize("method", ["begin", "advance", "report", "release"])
async def test_a_write_says_why_nothing_was_done(method: str) -> None:
    ports = leading_ports.LeadingPolicies(_stage().policies, lambda: False)
    arguments = [None] if method == "release" else [None, None]
    with pytest.raises(errors.LeaseLostError, match="nothing was done"):
        await getattr(ports, method)(*arguments)


def test_the_clock_of_the_lease_goes_on() -> None:
    clock = system_clock.BootClock()
    assert 0 < clock.monotonic_seconds() <= clock.monotonic_seconds()
