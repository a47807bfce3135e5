"""The Lease of the election, as Kubernetes keeps it."""

from __future__ import annotations

from couchestor_operator.adapters import kube_api
from couchestor_operator.control import election
from couchestor_operator.resources import lease_document


class KubeLeases:
    """Implements ``ports.lease_store.LeaseStore``.

    Args:
        lease_seconds: Of a Lease that does not say how long it is.
    """

    def __init__(
        self, api: kube_api.KubeApi, *, name: str, namespace: str, lease_seconds: int
    ) -> None:
        self._api = api
        self._name = name
        self._namespace = namespace
        self._lease_seconds = lease_seconds
        self._kind = kube_api.Kind(
            group=lease_document.GROUP,
            version=lease_document.VERSION,
            plural=lease_document.PLURAL,
            namespace=namespace,
        )

    async def read(self) -> election.Lease | None:
        """See the port."""
        document = await self._api.get(self._kind, self._name)
        if document is None:
            return None
        return lease_document.lease_of(document, lease_seconds=self._lease_seconds)

    async def write(self, lease: election.Lease) -> election.Lease:
        """See the port."""
        document = lease_document.document_of(lease, name=self._name, namespace=self._namespace)
        written = await (
            self._api.replace(self._kind, document)
            if lease.version
            else self._api.create(self._kind, document)
        )
        return lease_document.lease_of(written, lease_seconds=self._lease_seconds)
