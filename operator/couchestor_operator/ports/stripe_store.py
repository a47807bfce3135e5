"""Where stripe groups stand: one ECStripe each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from couchestor_operator.control import stripe_group


class StripeStore(Protocol):
    """Reads and writes the stripe groups of writers.

    A write names the version that it was decided on, is durable when it returns, and returns the
    group as it is then. It is refused with ``VersionConflictError`` if the group has changed since,
    or is gone. Where there was no answer it raises another ``TransientError``: the write may have
    happened, or may yet, and is then refused or leaves exactly what was asked for.
    """

    async def every(self) -> Sequence[stripe_group.StripeGroup]:
        """All of them, of any age; what is written on too old a look is refused.

        ECStripes that no writer's node is named in, or that cannot be read, are not among them.
        """
        ...

    async def is_there(self, name: str) -> bool:
        """Whether there is an ECStripe of that name, fresh."""
        ...

    async def make(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """Write a group that is not there.

        Raises:
            VersionConflictError: there is one of that name.
        """
        ...

    async def move(self, group: stripe_group.StripeGroup) -> stripe_group.StripeGroup:
        """Write its places and its generation, which is higher than that which is there."""
        ...

    async def tell(
        self, group: stripe_group.StripeGroup, told: stripe_group.Told
    ) -> stripe_group.StripeGroup:
        """Write how well it is; its places stay."""
        ...
