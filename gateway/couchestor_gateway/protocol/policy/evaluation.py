"""One question to a policy: what it may ask about the request, within bounds.

A policy and a request may be written to make an answer dear: many conditions on a long header, a
variable repeated in each of them. What goes beyond the bounds is not decided but denied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from couchestor_gateway.protocol.policy import condition_keys, wildcards

VALUE_CHARACTERS_MAX: Final = 4_096
"""Longest value that a condition looks at."""
EXPANDED_CHARACTERS_MAX: Final = 16_384
"""Most that all variables of one question may become."""


class UndecidedError(Exception):
    """The question goes beyond the bounds."""


class Facts(Protocol):
    """What is known of a request."""

    def values(self, key: str) -> Sequence[str] | None:
        """The values of a condition key, named as by ``condition_keys.normal``; None: absent."""
        ...


class Variable(NamedTuple):
    """A place that the request fills in."""

    key: str
    """As ``condition_keys.normal`` writes it."""
    default: str | None


Template = Sequence[str | wildcards.Wild | Variable]


def template(text: str, *, variables: bool, wild: bool) -> Template:
    """A text of a policy in pieces.

    Args:
        variables: Whether ``${...}`` stands for something.
        wild: Whether ``*`` and ``?`` do.
    """
    found: list[str | wildcards.Wild | Variable] = []
    start = 0
    while True:
        opening = text.find("${", start) if variables else -1
        closing = text.find("}", opening) if opening >= 0 else -1
        plain = text[start : opening if closing >= 0 else len(text)]
        if plain:
            found += wildcards.pieces(plain) if wild else [plain]
        if closing < 0:
            return found
        inside = text[opening + 2 : closing]
        found.append(inside if inside in ("*", "?", "$") else _variable(inside))
        start = closing + 1


class Evaluation:
    """A question about one action.

    Args:
        action: As ``actions.KINDS`` names it.
    """

    __slots__ = ("_expanded_characters", "_facts", "action")

    def __init__(self, action: str, facts: Facts) -> None:
        self.action = action
        self._facts = facts
        self._expanded_characters = 0

    def values(self, key: str) -> Sequence[str] | None:
        """What a request for the action says of a key; None: nothing.

        Raises:
            UndecidedError: a value is too long.
        """
        if not condition_keys.applies(key, self.action):
            return None
        values = self._facts.values(key)
        if values is not None and any(len(value) > VALUE_CHARACTERS_MAX for value in values):
            raise UndecidedError(key)
        return values

    def expanded(self, parts: Template) -> wildcards.Pattern | None:
        """A template, its variables replaced; None where one of them has no single value.

        Raises:
            UndecidedError: it would become too long.
        """
        found: list[str | wildcards.Wild] = []
        for piece in parts:
            if isinstance(piece, Variable):
                values = self.values(piece.key)
                value = values[0] if values is not None and len(values) == 1 else piece.default
                if value is None:
                    return None
                self._expanded_characters += len(value)
                if self._expanded_characters > EXPANDED_CHARACTERS_MAX:
                    raise UndecidedError(piece.key)
                found.append(value)
            else:
                found.append(piece)
        return found


class Texts:
    """Texts of a policy of which any may match; those without variables are ready to.

    Args:
        ignore_case: Compare without regard to case.
    """

    __slots__ = ("_fixed", "_ignore_case", "_varying")

    def __init__(self, templates: Sequence[Template], *, ignore_case: bool = False) -> None:
        fixed: list[wildcards.Pattern] = []
        varying: list[Template] = []
        for parts in templates:
            known = [piece for piece in parts if not isinstance(piece, Variable)]
            if len(known) == len(parts):
                fixed.append(_folded(known) if ignore_case else known)
            else:
                varying.append(parts)
        self._fixed = wildcards.Patterns(fixed)
        self._varying = tuple(varying)
        self._ignore_case = ignore_case

    def match(self, text: str, question: Evaluation) -> bool:
        """Whether one of them matches the whole text. Raises UndecidedError."""
        if self._ignore_case:
            text = text.casefold()
        if self._fixed.match(text):
            return True
        for parts in self._varying:
            pattern = question.expanded(parts)
            if pattern is None:
                continue
            if self._ignore_case:
                pattern = _folded(pattern)
            if wildcards.Patterns((pattern,)).match(text):
                return True
        return False


def _folded(pattern: wildcards.Pattern) -> wildcards.Pattern:
    return [piece.casefold() if isinstance(piece, str) else piece for piece in pattern]


def _variable(inside: str) -> Variable:
    name, comma, rest = inside.partition(",")
    default = rest.strip()
    if len(default) >= 2 and default[0] == default[-1] == "'":
        default = default[1:-1]
    return Variable(condition_keys.normal(name.strip()), default if comma else None)
