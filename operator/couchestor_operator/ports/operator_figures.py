"""Where figures of the operator go: each is told once, when it has come about."""

from __future__ import annotations

from typing import Protocol

from couchestor_operator.control import migration


class MigrationFigures(Protocol):
    """Hears of migrations. Never raises and never blocks."""

    def begun(self, policy_name: str) -> None:
        """One was written down."""
        ...

    def stepped(self, step: migration.Step, *, seconds: float) -> None:
        """One has left a step, after so long."""
        ...

    def ended(self, policy_name: str, outcome: migration.Outcome, *, seconds: float) -> None:
        """One has ended, after so long."""
        ...


class QueryFigures(Protocol):
    """Hears of queries for heat. Never raises and never blocks."""

    def queried(self, outcome: str, *, seconds: float) -> None:
        """One was answered (``ok``), or failed with the error of that name."""
        ...
