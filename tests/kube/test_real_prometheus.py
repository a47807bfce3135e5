"""The adapter and a real Prometheus: what it is asked is understood, and old data says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Final

import lying_prometheus
import pytest
import pytest_asyncio
from tests.kube import control_plane

from couchestor_domain import errors
from couchestor_operator.adapters import (
    prometheus,
    prometheus_access,
    prometheus_query,
    system_clock,
)
from couchestor_operator.control import heat

pytestmark = pytest.mark.asyncio(loop_scope="module")

START_SECONDS_MAX: Final = 60.0
HOUR_SECONDS: Final = 3600
SCRAPE_SECONDS: Final = 60
HISTORY_SECONDS: Final = 2 * HOUR_SECONDS + 600

CONFIGURATION: Final = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
storage: {{tsdb: {{out_of_order_time_window: 4h}}}}
scrape_configs:
- job_name: history
  static_configs: [{{targets: ["{target}"]}}]
"""


def _history(now_seconds: int) -> bytes:
    """Counters of the last two hours, one sample a minute, as one page with times."""
    lines = []
    first_seconds = now_seconds - HISTORY_SECONDS
    for at_seconds in range(first_seconds, now_seconds + 1, SCRAPE_SECONDS):
        age_seconds, passed_seconds = now_seconds - at_seconds, at_seconds - first_seconds
        rates = {"steady": 750, "idle": 0}
        if age_seconds >= HOUR_SECONDS // 2:
            rates["dead"] = 9000
        else:
            rates["young"] = 9000
        for volume, rate in rates.items():
            for metric, share in (
                ("openebs_volume_iops", rate),
                ("volume_num_read_ops", rate / 3),
                ("volume_num_write_ops", rate * 2 / 3),
            ):
                labels = f'volume="pvc-{volume}",pv_name="pvc-{volume}",node="n"'
                count = share * passed_seconds
                lines.append(f"{metric}{{{labels}}} {count} {at_seconds * 1000}")
    return ("\n".join(lines) + "\n").encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    binaries: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A Prometheus that has scraped the history."""
    folder = tmp_path_factory.mktemp("prometheus")
    history = lying_prometheus.sending(
        _history(int(time.time())), Content_Type="text/plain; version=0.0.4"
    )
    async with lying_prometheus.served(history) as target:
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(target=target.url.removeprefix("http://")))
        (port,) = control_plane.free_ports(1)
        server = control_plane.Server(
            name="prometheus",
            log=folder / "prometheus.txt",
            command=[
                str(binaries / "prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
        )
        server.start()
        try:
            url = f"http://127.0.0.1:{port}"
            deadline_seconds = time.monotonic() + START_SECONDS_MAX
            while not await asyncio.to_thread(_asked, url, "openebs_volume_iops"):
                server.check()
                assert time.monotonic() < deadline_seconds, server.log_tail()
                await asyncio.sleep(0.1)
            yield url
        finally:
            await asyncio.to_thread(server.stop)


def _asked(url: str, query: str) -> dict[str, float]:
    """What an instant query says, by volume; nothing while the server does not answer."""
    words = urllib.parse.urlencode({"query": query})
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"{url}/api/v1/query?{words}", timeout=5) as answer:
            document: Any = json.load(answer)
        return {
            one["metric"]["volume"]: float(one["value"][1]) for one in document["data"]["result"]
        }
    return {}


@pytest.mark.parametrize("preset", ["openebs", "mayastor"])
async def test_the_living_are_measured_and_the_dead_and_the_young_unknown(
    url: str, preset: str
) -> None:
    plain = await asyncio.to_thread(_asked, url, "rate(openebs_volume_iops[1h])")
    assert plain["pvc-dead"] > 1000, "without more, a series that has ended looks alive"
    async with prometheus.opened(
        prometheus_access.Access(url=url),
        prometheus_query.PRESETS[preset],
        trust=heat.Trust(),
        clock=system_clock.SystemClock(),
    ) as source:
        reading = await source.measure(float(HOUR_SECONDS))
    steady, idle = reading.of("steady"), reading.of("idle")
    assert isinstance(steady, heat.HeatScore)
    assert isinstance(idle, heat.HeatScore)
    assert steady.iops == pytest.approx(750, rel=0.01)
    assert idle.iops == 0
    assert steady.covered_ratio == 1.0
    assert reading.of("dead") is heat.Unknown.STALE
    assert reading.of("young") is heat.Unknown.NO_DATA


async def test_what_prometheus_says_of_a_wrong_query_is_passed_on(url: str) -> None:
    template = prometheus_query.QueryTemplate(
        expression="no_such_function(iops[$window])", volume_label="volume"
    )
    async with prometheus.opened(
        prometheus_access.Access(url=url),
        template,
        trust=heat.Trust(),
        clock=system_clock.SystemClock(),
    ) as source:
        with pytest.raises(errors.PrometheusQueryError, match=r"bad_data: .*no_such_function"):
            await source.measure(float(HOUR_SECONDS))
