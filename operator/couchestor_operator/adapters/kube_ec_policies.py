"""Erasure-coding policies as ErasureCodingPolicy resources."""

from __future__ import annotations

from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api
from couchestor_operator.control import ec_policy
from couchestor_operator.resources import definition, ec_policy_reading, field_types

KIND: Final = kube_api.Kind(
    group=field_types.GROUP,
    version=field_types.VERSION,
    plural=definition.ERASURE_CODING_POLICY.plural,
)


class KubeEcPolicies:
    """Implements ``ports.ec_policies.EcPolicies``."""

    def __init__(self, api: kube_api.KubeApi) -> None:
        self._api = api

    async def read(self, name: str) -> ec_policy.EcPolicy:
        """See the port."""
        document = await self._api.get(KIND, name)
        if document is None or document["metadata"].get("deletionTimestamp"):
            raise errors.EcPolicyNotFoundError(
                f"there is no ErasureCodingPolicy {name}: make it, or name another"
            )
        return ec_policy_reading.policy_of(document)
