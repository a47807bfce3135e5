"""Wiring of notices in the maintenance process: targets, deliveries, what people see of them."""

from __future__ import annotations

import functools

from couchestor_daemon.adapters import system_clock, webhook
from couchestor_daemon.app import metrics, node, settings
from couchestor_daemon.services import notice_delivery
from couchestor_gateway.protocol import event_message


class Notifying:
    """Deliveries to the targets that a node was told of."""

    def __init__(
        self, told: settings.Settings, parts: node.Node, *, measured: metrics.NodeMetrics
    ) -> None:
        self._measured = measured
        self._webhooks = {
            name: webhook.Webhook(url, connections_max=notice_delivery.CONCURRENT_MAX)
            for name, url in told.notification_urls.items()
        }
        self._works = [
            notice_delivery.NoticeDelivery(
                name,
                taker,
                index=parts.index,
                encode=event_message.write,
                submit=parts.commits.submit,
                now_ns=system_clock.SystemClock().now_ns,
                on_progress=functools.partial(self._show, name),
            )
            for name, taker in self._webhooks.items()
        ]

    def works(self) -> list[notice_delivery.NoticeDelivery]:
        """One for each target."""
        return list(self._works)

    async def close(self) -> None:
        """Let go of the targets, once the works have ended."""
        for each in self._webhooks.values():
            await each.close()

    def _show(self, target: str, progress: notice_delivery.Progress) -> None:
        measured = self._measured
        measured.notices_waiting.labels(target).set(progress.waiting_count)
        measured.notices_oldest_seconds.labels(target).set(progress.oldest_age_seconds)
        measured.notices_lost.labels(target).set(progress.lost_count)
        measured.notices_delivered.labels(target).inc(progress.delivered_count)
        measured.notices_failed.labels(target).inc(progress.failed_count)
