"""The operator as a process: who leads, what it takes, and what it says when it cannot begin."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import socket
import time
from typing import Final

import pytest
from tests.kube import control_plane, operator_runs, operator_stage

from couchestor_operator.adapters import kube_access

pytestmark = pytest.mark.timeout(180)

FAILOVER_SECONDS_MAX: Final = 20.0
IDLE_SECONDS: Final = 13.0


async def test_of_two_operators_one_leads_and_the_other_takes_over(
    stage: operator_stage.Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    first = operators.start()
    await first.until_leading(30)
    second = operators.start()
    await second.until_ready()
    assert second.health("/readyz")[1]["leading"] is False
    assert second.figure("couchestor_operator_passes_total") == 0
    killed_at_seconds = time.monotonic()
    first.stop(signal.SIGKILL)
    await second.until_leading(FAILOVER_SECONDS_MAX)
    assert time.monotonic() - killed_at_seconds < FAILOVER_SECONDS_MAX
    # One that stops in order is not waited for.
    third = operators.start()
    await third.until_ready()
    assert second.stop(signal.SIGTERM) == 0
    await third.until_leading(5)


async def test_an_operator_that_loses_the_lease_stops_and_goes_on_when_it_has_it_again(
    stage: operator_stage.Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    operator = operators.start()
    await operator.until_leading(30)
    path = f"{operator_runs.LEASES}/{stage.lease}"
    spec = {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3}
    status, answer = stage.plane.request("PATCH", path, {"spec": spec})
    assert status == 200, answer
    leading = "couchestor_operator_leading"
    await operator_runs.until(lambda: operator.figures()[leading] == 0.0, operator, 15)
    # Somebody else renews nothing, and so is over when its three seconds are.
    await operator.until_leading(10)
    told = [line["message"].partition(" ")[2] for line in operator.lines()]
    assert [line for line in told if "the lease" in line and "hold" in line] == [
        "holds the lease",
        "does not hold the lease any more: stopped",
        "holds the lease",
    ]
    passes = 'couchestor_operator_passes_total{outcome="complete"}'
    before = operator.figure(passes)
    await operator_runs.until(lambda: operator.figure(passes) > before, operator, 10)
    assert operator.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kubeconfig": "/no/such"}, "there is no kubeconfig /no/such: give the path"),
        ({"kube_context": "other"}, "cannot be used: "),
        ({"metrics_addr": "127.0.0.1:TAKEN"}, "choose another address with --metrics-addr"),
        ({"prometheus_url": "https://p", "prometheus_ca_file": "/no/such"}, "the CA file /no/such"),
        ({"prometheus_url": "nowhere"}, "the Prometheus URL is not one"),
        ({"metrics_query": "rate(x[1h"}, "the metrics query 'rate(x[1h' cannot be used"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
async def test_a_setting_that_cannot_be_used_ends_the_operator_at_once_in_one_line(
    operators: operator_runs.Operators, options: dict[str, str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = {name: text.replace("TAKEN", str(port)) for name, text in options.items()}
        operator = operators.start(**words)
        assert await asyncio.to_thread(operator.process.wait, 20) == 2
    last = operator.lines()[-1]
    assert said in last["message"]
    assert (last["level"], "exception" in last) == ("error", False)


async def test_an_idle_operator_takes_less_than_a_hundredth_of_a_processor(
    stage: operator_stage.Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    # Three times as many passes as by default.
    operator = operators.start(pass_interval_seconds="10", sync_poll_interval_seconds="5")
    passes = 'couchestor_operator_passes_total{outcome="complete"}'
    await operator_runs.until(lambda: operator.figure(passes) == 1, operator, 30)
    before_seconds, started_seconds = operator.processor_seconds(), time.monotonic()
    # Renewals, watches and a pass; nobody asks it anything meanwhile, which would count, too.
    await asyncio.sleep(IDLE_SECONDS)
    taken_seconds = operator.processor_seconds() - before_seconds
    print("IDLE", taken_seconds)
    assert taken_seconds / (time.monotonic() - started_seconds) < 0.01
    assert operator.figure(passes) == 2
    assert operator.health("/healthz") == (200, {"stuck_loops_silent_seconds": {}})


async def test_an_operator_without_an_api_server_says_so_and_waits(
    operators: operator_runs.Operators, access: kube_access.Access, tmp_path: pathlib.Path
) -> None:
    (port,) = control_plane.free_ports(1)
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
        f"clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}'}}}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    operator = operators.start(kubeconfig=str(nowhere))
    await operator_runs.until(
        lambda: any("cannot be reached" in line["message"] for line in operator.lines()),
        operator,
        30,
    )
    status, answer = operator.health("/readyz")
    assert status == 503
    assert "nothing has been heard of storagepolicies" in answer["missing"]["policies"]
    assert operator.health("/healthz")[0] == 200
    assert operator.stop(signal.SIGTERM) == 0
