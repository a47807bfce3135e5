"""Stripe groups as ECStripe resources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api, kube_copy
from couchestor_operator.control import stripe_group
from couchestor_operator.ports import clock
from couchestor_operator.resources import definition, field_types, stripe_document

_LOG = logging.getLogger(__name__)

KIND: Final = kube_api.Kind(
    group=field_types.GROUP, version=field_types.VERSION, plural=definition.EC_STRIPE.plural
)


class _Known(NamedTuple):
    """A group, and the version of the document that it was read from."""

    version: str
    group: stripe_group.StripeGroup | None
    """None: it is not ours, or cannot be read, of which a warning told."""


class KubeStripes:
    """Implements ``ports.stripe_store.StripeStore``.

    A write takes the document at hand if that is of the version it was decided on, else reads it,
    and replaces it under that very version, which the API server compares.

    Args:
        watched: The ECStripes at hand, of ``KIND``; somebody else keeps them up.
    """

    def __init__(
        self, api: kube_api.KubeApi, watched: kube_copy.KubeCopy, time: clock.Clock
    ) -> None:
        self._api = api
        self._watched = watched
        self._time = time
        self._known: dict[str, _Known] = {}
        """Read once as long as the document does not change: there may be very many."""

    async def every(self) -> Sequence[stripe_group.StripeGroup]:
        """See the port; as old as ``KubeCopy`` allows."""
        known, self._known = self._known, {}
        for name, document in self._watched.at_hand().items():
            version = document["metadata"]["resourceVersion"]
            kept = known.get(name)
            if kept is None or kept.version != version:
                kept = _Known(version, _readable(name, document))
            self._known[name] = kept
        return [kept.group for kept in self._known.values() if kept.group is not None]

    async def is_there(self, name: str) -> bool:
        """See the port."""
        return await self._api.get(KIND, name) is not None

    async def make(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """See the port."""
        return _group_of(await self._api.create(KIND, stripe_document.document_of(group)))

    async def move(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """See the port."""
        return await self._write(group, lambda found: stripe_document.moved(found, group))

    async def tell(
        self, group: stripe_group.StripeGroup, told: stripe_group.Told
    ) -> stripe_group.StripeGroup:
        """See the port."""
        now_seconds = self._time.now_seconds()
        return await self._write(
            group,
            lambda found: stripe_document.with_told(found, told, now_seconds=now_seconds),
            part="status",
        )

    async def _write(
        self,
        group: stripe_group.StripeGroup,
        change: Callable[[kube_api.Document], kube_api.Document],
        *,
        part: str = "",
    ) -> stripe_group.StripeGroup:
        document = self._watched.at_hand().get(group.name)
        if document is None or document["metadata"]["resourceVersion"] != group.version:
            document = await self._api.get(KIND, group.name)
        if document is None or document["metadata"]["resourceVersion"] != group.version:
            raise errors.VersionConflictError(
                f"stripe group {group.name} is not of version {group.version} any more: read it"
                " again",
                stripe=group.name,
            )
        return _group_of(await self._api.replace(KIND, change(document), part=part))


def _group_of(document: kube_api.Document) -> stripe_group.StripeGroup:
    group = stripe_document.group_of(document)
    if group is None:
        raise errors.KubernetesApiError(
            f"ECStripe {document['metadata']['name']} has lost its annotation"
            f" {stripe_document.WRITER_NODE} in writing: look at admission webhooks"
        )
    return group


def _readable(name: str, document: kube_api.Document) -> stripe_group.StripeGroup | None:
    try:
        return stripe_document.group_of(document)
    except errors.KubernetesApiError as exc:
        _LOG.warning("stripe group %s is left alone: %s", name, exc)
        return None
