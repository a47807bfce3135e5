"""Where erasure-coding policies stand."""

from __future__ import annotations

from typing import Protocol

from couchestor_operator.control import ec_policy


class EcPolicies(Protocol):
    """Reads policies."""

    async def read(self, name: str) -> ec_policy.EcPolicy:
        """A policy, fresh.

        Raises:
            EcPolicyNotFoundError: there is no such, or it is being deleted.
            InvalidEcConfigurationError: it asks for the impossible.
            TransientError: (``KubernetesApiError``) there was no answer.
        """
        ...
