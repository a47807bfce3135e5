"""The conditions of a statement: all of them have to hold.

    the request says of the key     operator                negated     ...IfExists
    nothing                         does not hold           holds       holds
    one value                       holds if one fits       if none fits
    several values                  as ForAnyValue          if none of any fits

``ForAllValues:`` wants it of each value that the request has, and holds if there is none;
``ForAnyValue:`` wants it of one at least.

Source: AWS IAM User Guide, "Condition operators" and "Set operators for multivalued context keys".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_gateway.protocol.policy import (
    condition_keys,
    evaluation,
    operators,
    policy_json,
)

_NULL: Final = "Null"
_IF_EXISTS: Final = "IfExists"


class Quantifier(enum.Enum):
    """Of how many of a request's values a condition is asked."""

    ALL = "ForAllValues"
    ANY = "ForAnyValue"


class Condition(NamedTuple):
    """One key and what its value has to be."""

    operator: str
    """Its bare name."""
    key: str
    texts: Sequence[str]
    """As the policy writes them."""
    values: operators.Values | None
    """None: whether the key is there, ``wants_absence``, is all that is asked."""
    is_negated: bool = False
    if_exists: bool = False
    quantifier: Quantifier | None = None
    wants_absence: bool = False

    def holds(self, question: evaluation.Evaluation) -> bool:
        """Whether the request is so. Raises UndecidedError."""
        found = question.values(self.key)
        values = self.values
        if values is None:
            return (not found) is self.wants_absence
        if not found:
            if self.quantifier is Quantifier.ALL or self.if_exists:
                return True
            return self.is_negated and self.quantifier is None
        fits = (values.fit(each, question) is not self.is_negated for each in found)
        if self.quantifier is Quantifier.ALL:
            return all(fits)
        if self.quantifier is None and self.is_negated:
            return all(fits)
        return any(fits)


def parse(value: policy_json.Value, *, of: Iterable[str], variables: bool) -> list[Condition]:
    """The conditions of a statement.

    Args:
        of: The actions that the statement names.
        variables: Whether ``${...}`` stands for something.

    Raises:
        S3Error: MalformedPolicy.
    """
    if not isinstance(value, Mapping):
        raise policy_json.malformed("Invalid policy syntax.")
    found: list[Condition] = []
    for kind, keys in value.items():
        if not isinstance(keys, Mapping):
            raise policy_json.malformed("Invalid policy syntax.")
        for key, wanted in keys.items():
            texts = [_text(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
            name = condition_keys.normal(key)
            condition = _condition(kind, name, texts, variables)
            if not condition_keys.is_known(name):
                raise policy_json.malformed("Policy has an invalid condition key")
            if not condition_keys.applies_to_any(name, of):
                raise inapplicable()
            found.append(condition)
        if not keys:
            _operator(kind)
    return found


def inapplicable() -> Exception:
    """The refusal of a key that says nothing of the actions."""
    return policy_json.malformed(
        "Conditions do not apply to combination of actions and resources in statement"
    )


def _condition(kind: str, key: str, texts: Sequence[str], variables: bool) -> Condition:
    name, quantifier, if_exists = _operator(kind)
    try:
        if name == _NULL:
            wanted = {text.lower() for text in texts}
            if len(wanted) != 1 or not wanted <= {"true", "false"}:
                raise ValueError(texts)
            return Condition(name, key, texts, None, wants_absence=wanted == {"true"})
        known = operators.OPERATORS[name]
        values = known.read(texts, variables)
    except ValueError as exc:
        raise policy_json.malformed(f"Invalid value in Conditions for operator {kind}") from exc
    return Condition(name, key, texts, values, known.is_negated, if_exists, quantifier)


def _operator(kind: str) -> tuple[str, Quantifier | None, bool]:
    prefix, colon, name = kind.rpartition(":")
    base = name.removesuffix(_IF_EXISTS)
    is_known = base in operators.OPERATORS or name == _NULL
    quantifiers = {each.value: each for each in Quantifier}
    if not is_known or (colon and prefix not in quantifiers):
        raise policy_json.malformed(f"Invalid Condition type : {kind[:64]}")
    return base, quantifiers.get(prefix), base != name


def _text(value: policy_json.Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise policy_json.malformed("Invalid policy syntax.")
    return value
