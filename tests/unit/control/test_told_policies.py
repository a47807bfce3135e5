"""Migrations are told of once each, and operators' limits hold whatever a policy asks for."""

from __future__ import annotations

import asyncio
import logging

import memory_policies
import policy_store_contract
import pytest
import tiering_stage

from couchestor_domain import errors
from couchestor_operator.app import figures
from couchestor_operator.control import migration
from couchestor_operator.ports import metrics_provider
from couchestor_operator.services import limited_policies, timed_heat, told_policies


async def test_each_step_and_each_end_is_logged_and_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    stage, seen = tiering_stage.Stage(), figures.OperatorFigures()
    stage.policies.put(tiering_stage.POLICY, tiering_stage.rule())
    stage.put(tiering_stage.volume("v", "cold-0"), iops=9000)
    told = told_policies.ToldPolicies(stage.policies, seen)
    for _ in range(tiering_stage.PASSES_COUNT_MAX):
        stage.clock.go(1.0)
        summary = await stage.operator(policies=told).run()
        await stage.settle()
        if summary.begun_count == summary.under_way_count == 0:
            break
    lines = [record for record in caplog.records if hasattr(record, "migration")]
    assert [line.getMessage().partition(" after")[0] for line in lines] == [
        "volume v is to move from pool cold-0 (cold) to hot-0 (hot): 9000 IOPS",
        "volume v goes on to ScaleUp",
        "volume v goes on to WaitSync",
        "volume v goes on to ScaleDown",
        "the migration of volume v is to end in ScaleDown: moved from pool cold-0 to hot-0",
        "volume v: Completed",
    ]
    page = (await asyncio.to_thread(seen.page)).decode()
    for step in migration.Step:
        count = f'couchestor_operator_migration_step_seconds_count{{step="{step.value}"}} 1.0'
        assert count in page
    assert 'migrations_ended_total{outcome="Completed",policy="p"} 1.0' in page
    assert 'couchestor_operator_migrations_begun_total{policy="p"} 1.0' in page


async def test_what_was_not_written_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    memory, seen = memory_policies.MemoryPolicies(), figures.OperatorFigures()
    memory.put("p", tiering_stage.rule())
    told = told_policies.ToldPolicies(memory, seen)
    state = await told.read("p")
    assert state is not None
    memory.put("p", tiering_stage.rule())
    with pytest.raises(errors.VersionConflictError):
        await told.begin(state, policy_store_contract.record())
    assert not caplog.records
    assert "migrations_begun_total{" not in (await asyncio.to_thread(seen.page)).decode()


async def test_an_operator_in_dry_run_moves_nothing_whatever_policies_say() -> None:
    stage = tiering_stage.Stage()
    stage.policies.put(tiering_stage.POLICY, tiering_stage.rule())
    stage.put(tiering_stage.volume("v", "cold-0"), iops=9000)
    limited = limited_policies.LimitedPolicies(stage.policies, dry_run=True)
    summary = await stage.operator(policies=limited).run()
    assert (summary.begun_count, len(summary.planned)) == (0, 1)
    assert stage.condition("MovesPlanned")[:2] == ("True", "DryRun")


@pytest.mark.parametrize(
    ("allowed_seconds", "expected_seconds"), [(None, 1800.0), (60.0, 60.0), (9999.0, 1800.0)]
)
async def test_no_migration_may_take_longer_than_the_operator_allows(
    allowed_seconds: float | None, expected_seconds: float
) -> None:
    stage = tiering_stage.Stage()
    stage.policies.put(tiering_stage.POLICY, tiering_stage.rule())
    stage.put(tiering_stage.volume("v", "cold-0"), iops=9000)
    limited = limited_policies.LimitedPolicies(stage.policies, timeout_seconds_max=allowed_seconds)
    await stage.operator(policies=limited).run()
    state = await stage.policies.read(tiering_stage.POLICY)
    assert state is not None
    (record,) = state.records
    assert record.deadline_seconds - record.started_seconds == expected_seconds


async def test_queries_are_counted_by_what_came_of_them() -> None:
    stage, seen = tiering_stage.Stage(), figures.OperatorFigures()
    timed = timed_heat.TimedHeat(stage.heat, stage.clock, seen)
    assert isinstance(await timed.measure(60.0), metrics_provider.HeatReading)
    stage.heat.fault = errors.PrometheusQueryError("no")
    with pytest.raises(errors.PrometheusQueryError):
        await timed.measure(60.0)

    class Endless:
        async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
            await asyncio.Event().wait()
            raise AssertionError(window_seconds)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await timed_heat.TimedHeat(Endless(), stage.clock, seen).measure(1.0)
    page = (await asyncio.to_thread(seen.page)).decode()
    for outcome in ("ok", "PrometheusQuery", "cancelled"):
        assert f'couchestor_operator_queries_total{{outcome="{outcome}"}} 1.0' in page
