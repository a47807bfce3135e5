"""Label selectors, with the meaning that Kubernetes gives them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from couchestor_domain import errors


class Operator(enum.Enum):
    """How a requirement compares the value of its key."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One expression of a selector.

    Raises:
        InvalidSelectorError: ``In`` or ``NotIn`` without values, the others with some.
    """

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        takes_values = self.operator in (Operator.IN, Operator.NOT_IN)
        if takes_values == bool(self.values):
            return
        raise errors.InvalidSelectorError(
            f"the selector's {self.operator.value} on {self.key!r} must have "
            f"{'at least one value' if takes_values else 'no values'}",
            key=self.key,
        )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet the requirement. ``NotIn`` is met by a key that is absent."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """All labels and all requirements must match; an empty selector matches everything."""

    match_labels: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet everything that is asked for."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.requirements
        )
