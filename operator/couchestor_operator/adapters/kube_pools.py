"""Pools as Mayastor's DiskPools."""

from __future__ import annotations

import logging

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api
from couchestor_operator.control import pool
from couchestor_operator.resources import disk_pool

_LOG = logging.getLogger(__name__)


class KubePools:
    """Reads the DiskPools of one namespace.

    Args:
        version: Which of ``disk_pool.VERSIONS`` the cluster serves.
    """

    def __init__(
        self, api: kube_api.KubeApi, *, namespace: str, version: str = disk_pool.VERSIONS[0]
    ) -> None:
        self._api = api
        self._kind = kube_api.Kind(
            group=disk_pool.GROUP, version=version, plural=disk_pool.PLURAL, namespace=namespace
        )

    async def every(self) -> list[pool.Pool]:
        """All that can be read; of the others a warning tells.

        Raises:
            KubernetesApiError: the list was not answered, or refused.
        """
        found: list[pool.Pool] = []
        for document in (await self._api.listed(self._kind)).documents:
            try:
                found.append(disk_pool.pool_of(document))
            except errors.KubernetesApiError as exc:
                _LOG.warning("pool %s is passed over: %s", document["metadata"]["name"], exc)
        return found

    async def one(self, name: str) -> pool.Pool | None:
        """A pool, fresh; None if there is no such.

        Raises:
            KubernetesApiError: it was not answered, refused, or cannot be read.
        """
        document = await self._api.get(self._kind, name)
        return None if document is None else disk_pool.pool_of(document)
