"""The operators of conditions: how a value of a request is compared with those of a policy.

Source: AWS IAM User Guide, "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import base64
import binascii
import decimal
import ipaddress
import operator
import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from couchestor_domain import units
from couchestor_gateway.protocol import timestamps
from couchestor_gateway.protocol.policy import evaluation, policy_json, wildcards

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Order = Callable[[Any, Any], bool]

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_ARN_PARTS: Final = 6


class Values(Protocol):
    """The values of a condition, of which any may fit a request's."""

    def fit(self, value: str, question: evaluation.Evaluation) -> bool:
        """Whether one does. Raises UndecidedError."""
        ...


class Operator(NamedTuple):
    """How one operator compares."""

    read: Callable[[Sequence[str], bool], Values]
    """Makes values of a policy's texts; whether ``${...}`` are variables. Raises ValueError."""
    is_negated: bool = False
    """Whether it asks that no value fits."""


class _Texts:
    __slots__ = ("_texts",)

    def __init__(self, texts: evaluation.Texts) -> None:
        self._texts = texts

    def fit(self, value: str, question: evaluation.Evaluation) -> bool:
        return self._texts.match(value, question)


class _Arns:
    """Compared part by part, so that a wildcard never reaches beyond a colon but in the last."""

    __slots__ = ("_arns",)

    def __init__(self, arns: Sequence[Sequence[evaluation.Texts]]) -> None:
        self._arns = arns

    def fit(self, value: str, question: evaluation.Evaluation) -> bool:
        parts = value.split(":", _ARN_PARTS - 1)
        return len(parts) == _ARN_PARTS and any(
            all(texts.match(part, question) for texts, part in zip(arn, parts, strict=True))
            for arn in self._arns
        )


class _Ordered:
    """Numbers or moments."""

    __slots__ = ("_is_so", "_limits", "_read")

    def __init__(
        self, limits: Sequence[object], read: Callable[[str], object], is_so: _Order
    ) -> None:
        self._limits = limits
        self._read = read
        self._is_so = is_so

    def fit(self, value: str, question: evaluation.Evaluation) -> bool:
        del question
        try:
            found = self._read(value)
        except ValueError:
            return False
        return any(self._is_so(found, limit) for limit in self._limits)


class _Addresses:
    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[_Network]) -> None:
        self._networks = networks

    def fit(self, value: str, question: evaluation.Evaluation) -> bool:
        del question
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def network(text: str) -> _Network:
    """A range of addresses; bits beyond its prefix say nothing.

    Raises:
        S3Error: MalformedPolicy.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise policy_json.malformed("Invalid IP address in Conditions") from exc


def moment_ns(text: str) -> int:
    """A moment since the Unix epoch: ISO 8601 with a zone, a day in UTC, or its seconds.

    Raises:
        ValueError
    """
    if _NUMBER.fullmatch(text):
        return int(decimal.Decimal(text) * units.NS_PER_SECOND)
    found = timestamps.parse_iso8601(text if "T" in text else f"{text}T00:00:00Z")
    if found is None:
        raise ValueError(text)
    return found


def _number(text: str) -> decimal.Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return decimal.Decimal(text)


def _strings(*, wild: bool = False, ignore_case: bool = False) -> Callable[..., Values]:
    def read(texts: Sequence[str], variables: bool) -> Values:
        templates = [evaluation.template(each, variables=variables, wild=wild) for each in texts]
        return _Texts(evaluation.Texts(templates, ignore_case=ignore_case))

    return read


def _arns(texts: Sequence[str], variables: bool) -> Values:
    return _Arns(
        [_arn(evaluation.template(each, variables=variables, wild=True)) for each in texts]
    )


def _arn(parts: evaluation.Template) -> list[evaluation.Texts]:
    split: list[list[str | wildcards.Wild | evaluation.Variable]] = [[]]
    for piece in parts:
        if not isinstance(piece, str):
            split[-1].append(piece)
            continue
        first, *others = piece.split(":", _ARN_PARTS - len(split))
        split[-1].append(first)
        split += [[other] for other in others]
    if len(split) != _ARN_PARTS:
        raise ValueError("it has not the six parts of an ARN")
    return [evaluation.Texts([part]) for part in split]


def _ordered(read_one: Callable[[str], object], is_so: _Order) -> Callable[..., Values]:
    def read(texts: Sequence[str], variables: bool) -> Values:
        del variables
        return _Ordered([read_one(each) for each in texts], read_one, is_so)

    return read


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(text) from exc


def _addresses(texts: Sequence[str], variables: bool) -> Values:
    del variables
    return _Addresses([network(each) for each in texts])


def _orders(kind: str, read_one: Callable[[str], object]) -> dict[str, Operator]:
    orders = {
        "LessThan": operator.lt,
        "LessThanEquals": operator.le,
        "GreaterThan": operator.gt,
        "GreaterThanEquals": operator.ge,
    }
    equals = _ordered(read_one, operator.eq)
    return {
        f"{kind}Equals": Operator(equals),
        f"{kind}NotEquals": Operator(equals, is_negated=True),
        **{f"{kind}{name}": Operator(_ordered(read_one, order)) for name, order in orders.items()},
    }


OPERATORS: Final = MappingProxyType(
    {
        "StringEquals": Operator(_strings()),
        "StringNotEquals": Operator(_strings(), is_negated=True),
        "StringEqualsIgnoreCase": Operator(_strings(ignore_case=True)),
        "StringNotEqualsIgnoreCase": Operator(_strings(ignore_case=True), is_negated=True),
        "StringLike": Operator(_strings(wild=True)),
        "StringNotLike": Operator(_strings(wild=True), is_negated=True),
        **_orders("Numeric", _number),
        **_orders("Date", moment_ns),
        "Bool": Operator(_ordered(_bool, operator.eq)),
        "BinaryEquals": Operator(_ordered(_binary, operator.eq)),
        "IpAddress": Operator(_addresses),
        "NotIpAddress": Operator(_addresses, is_negated=True),
        # The two are the same, as S3 has them.
        "ArnEquals": Operator(_arns),
        "ArnLike": Operator(_arns),
        "ArnNotEquals": Operator(_arns, is_negated=True),
        "ArnNotLike": Operator(_arns, is_negated=True),
    }
)
"""By name; ``Null`` asks only whether a key is there, so it compares nothing."""
