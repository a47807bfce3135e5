"""Prometheus as the source of heat: one range query for all volumes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import ssl
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from couchestor_domain import errors, units
from couchestor_operator.adapters import (
    bounded_body,
    http_session,
    prometheus_access,
    prometheus_answer,
    prometheus_query,
    prometheus_refusal,
)
from couchestor_operator.control import heat
from couchestor_operator.ports import clock, metrics_provider

COMPLAINT_BYTES_MAX: Final = 64 * units.KIB
"""Read of an answer that is an error."""
_TURN_VOLUMES_COUNT: Final = 100
"""Volumes scored before others have a turn on the event loop: a few ms."""


class Prometheus:
    """Asks one Prometheus, each time anew; use it behind a ``heat_cache.HeatCache``.

    Use ``opened``, which closes its connections at the end.
    """

    def __init__(
        self,
        access: prometheus_access.Access,
        template: prometheus_query.QueryTemplate,
        *,
        trust: heat.Trust,
        clock: clock.Clock,
        session: http_session.HttpSession,
    ) -> None:
        self._access = access
        self._where = f"Prometheus at {access.url}"
        self._template = template
        self._trust = trust
        self._clock = clock
        self._session = session
        self._secrets: list[str] = []
        """What must not be shown of the last query."""

    async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
        """See ``MetricsProvider.measure``; the reading is as old as the query took."""
        end_seconds = math.floor(self._clock.now_seconds())
        steps = prometheus_query.steps(window_seconds)
        start_seconds = end_seconds - steps.steps_count * steps.step_seconds
        body = await self._ask(
            {
                "query": self._template.rendered(window_seconds),
                "start": f"{start_seconds:.3f}",
                "end": f"{end_seconds:.3f}",
                "step": f"{steps.step_seconds:.3f}",
                "timeout": prometheus_query.promql_duration(self._access.deadline_seconds),
            }
        )
        series = prometheus_answer.read(
            body,
            where=self._where,
            volume_label=self._template.volume_label,
            plain=self._plain,
        )
        # A sample stands for what lies between it and the next one; one that is lost is bridged.
        trust = dataclasses.replace(
            self._trust,
            gap_seconds_max=max(self._trust.gap_seconds_max, 2 * steps.step_seconds),
        )
        scores: dict[str, heat.HeatScore | heat.Unknown] = {}
        for index, (volume, values) in enumerate(series.by_volume.items()):
            if index % _TURN_VOLUMES_COUNT == _TURN_VOLUMES_COUNT - 1:
                await asyncio.sleep(0)
            scores[volume] = heat.score(
                prometheus_answer.samples(values, where=self._where),
                now_seconds=end_seconds,
                window_seconds=window_seconds,
                trust=trust,
            )
        return metrics_provider.HeatReading(
            measured_at_seconds=end_seconds,
            window_seconds=window_seconds,
            scores=scores,
            unnamed_series_count=series.unnamed_count,
        )

    async def _ask(self, form: dict[str, str]) -> bytearray:
        """The body of a successful answer."""
        try:
            async with asyncio.timeout(self._access.deadline_seconds):
                return await self._post(form)
        except TimeoutError as exc:
            raise errors.PrometheusConnectionError(
                f"{self._where} did not answer the metrics query within"
                f" {self._access.deadline_seconds:g} s: look at its load, or allow it more time",
                retry_after_seconds=prometheus_refusal.RETRY_AFTER_SECONDS,
            ) from exc
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as exc:
            raise errors.PrometheusConnectionError(
                f"{self._where} shows a certificate that is not trusted: give the CA file that"
                f" signed it ({self._plain(str(exc))})"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise errors.PrometheusConnectionError(
                f"{self._where} cannot be reached, or broke off: {type(exc).__name__}:"
                f" {self._plain(str(exc))}"
            ) from exc

    async def _post(self, form: dict[str, str]) -> bytearray:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        secret = await self._session.authorization(self._access)
        if secret is not None:
            headers["Authorization"] = secret
            # The longest first: it may contain the others.
            self._secrets = [secret, secret.partition(" ")[2], self._access.password or ""]
        async with self._session.client.post(
            self._access.range_url, data=form, headers=headers, allow_redirects=False
        ) as response:
            if response.status == 200:
                return await bounded_body.read(
                    response,
                    self._access.answer_bytes_max,
                    where=self._where,
                    unfit=errors.PrometheusParseError,
                    too_long="let the query aggregate by the volume label, or allow more",
                )
            said = ""
            # What an error says is a help, not a need.
            with contextlib.suppress(errors.CouchestorError, aiohttp.ClientError):
                body = await bounded_body.read(
                    response,
                    COMPLAINT_BYTES_MAX,
                    where=self._where,
                    unfit=errors.PrometheusParseError,
                )
                said = self._plain(prometheus_answer.complaint(body))
            raise prometheus_refusal.refusal(
                response.status,
                response.headers,
                said=said,
                where=self._where,
                now_seconds=self._clock.now_seconds(),
                plain=self._plain,
            )

    def _plain(self, text: str) -> str:
        """Someone else's text, without the credentials that they may send back."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "...")
        return prometheus_answer.plain(text)


@contextlib.asynccontextmanager
async def opened(
    access: prometheus_access.Access,
    template: prometheus_query.QueryTemplate,
    *,
    trust: heat.Trust,
    clock: clock.Clock,
) -> AsyncIterator[Prometheus]:
    """A Prometheus to ask, until the end of the block.

    Raises:
        ConfigurationError: a certificate file cannot be used.
    """
    async with http_session.opened(access, connections_count=2) as session:
        yield Prometheus(access, template, trust=trust, clock=clock, session=session)
