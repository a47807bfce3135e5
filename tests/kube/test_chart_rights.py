"""What the chart lets the operator do is what the operator does: no verb less, and none more."""

from __future__ import annotations

import pathlib
import signal
import uuid
from collections.abc import Collection
from typing import Final

import fake_mayastor
import pytest
from tests.kube import chart_accounts, operator_runs, operator_stage

pytestmark = pytest.mark.timeout(180)

SECONDS_MAX: Final = 60.0


LEASE_CREATION: Final = ("coordination.k8s.io", "leases", "create")


async def _deleted_policy(
    stage: operator_stage.Stage, operator: operator_runs.OperatorProcess
) -> None:
    path = f"{operator_runs.POLICIES}/{stage.policy}"
    status, answer = stage.plane.request("DELETE", path)
    assert status == 200, answer
    # The operator's finalizer keeps it until the operator has seen that.
    await operator_runs.until(
        lambda: stage.plane.request("GET", path)[0] == 404, operator, SECONDS_MAX
    )


def _checked(
    account: chart_accounts.Account, *, shown_elsewhere: Collection[chart_accounts.Right] = ()
) -> None:
    asked = list(account.used())
    assert [each for each in asked if each[1] in (401, 403)] == []
    used = {right for right, _ in asked} | set(shown_elsewhere)
    granted = account.granted()
    assert granted - used == set(), "the chart grants what nothing uses"
    assert used - granted == set()


@pytest.mark.parametrize("volume_manager", ["resources"])
async def test_a_migration_through_resources_uses_every_right_and_needs_no_other(
    stage: operator_stage.Stage,
    account: chart_accounts.Account,
    operators: operator_runs.Operators,
) -> None:
    # As on the day of the first installation, which takes the length of a lease.
    status, answer = stage.plane.request("DELETE", f"{operator_runs.LEASES}/{stage.lease}")
    assert status == 200, answer
    operator = operators.start()
    async with stage.manager():
        await operator_runs.until(lambda: stage.outcomes() == ["Completed"], operator, SECONDS_MAX)
    await _deleted_policy(stage, operator)
    # The Events that wait are written, and the Lease is given back.
    assert operator.stop(signal.SIGTERM) == 0
    assert "MigrationCompleted" in stage.told()
    _checked(account)


@pytest.mark.parametrize("volume_manager", ["rest"])
async def test_a_migration_through_the_rest_api_uses_every_right_and_needs_no_other(
    stage: operator_stage.Stage,
    account: chart_accounts.Account,
    operators: operator_runs.Operators,
) -> None:
    volume = str(uuid.uuid4())
    stage.heat[volume] = 9000.0
    stage.cluster.put_claim(
        volume, size_bytes=operator_stage.VOLUME_BYTES, storage_class=stage.policy
    )
    async with fake_mayastor.served() as server:
        for tier, node in (("cold", "node-a"), ("hot", "node-b")):
            server.put_pool(f"{tier}-0", node=node, tier=tier, available_bytes=1000)
        server.put_volume(volume, "cold-0", size_bytes=operator_stage.VOLUME_BYTES)
        operator = operators.start(volume_manager="rest", mayastor_url=server.url)

        def moved() -> bool:
            server.settle(volume)
            return stage.outcomes() == ["Completed"]

        await operator_runs.until(moved, operator, SECONDS_MAX)
        await _deleted_policy(stage, operator)
        assert operator.stop(signal.SIGTERM) == 0
    _checked(account, shown_elsewhere=[LEASE_CREATION])


@pytest.mark.parametrize("volume_manager", ["resources"])
async def test_the_account_may_touch_nothing_else(
    account: chart_accounts.Account, tmp_path: pathlib.Path, stage: operator_stage.Stage
) -> None:
    access = account.opened(tmp_path)
    elsewhere = stage.plane.as_bearer(access.token_file.read_text())
    for method, path in (
        ("GET", "/api/v1/namespaces/couchestor-system/secrets"),
        ("GET", "/api/v1/namespaces/default/events"),
        ("DELETE", f"{operator_runs.LEASES}/{stage.lease}"),
        ("GET", f"{operator_runs.LEASES}/of-somebody-else"),
        ("DELETE", "/api/v1/persistentvolumes/any"),
        ("GET", "/apis/openebs.io/v1alpha1/namespaces/default/mayastorvolumes"),
        ("DELETE", f"{operator_runs.POLICIES}/{stage.policy}"),
    ):
        assert elsewhere.request(method, path)[0] == 403, (method, path)
