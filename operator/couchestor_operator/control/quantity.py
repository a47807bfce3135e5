"""Byte counts as Kubernetes writes them: ``10Gi``, ``500M``, ``1e9``, ``1048576``."""

from __future__ import annotations

import decimal
import re
from typing import Final

from couchestor_domain import errors

TEXT_LENGTH_MAX: Final = 40
BYTES_MAX: Final = (1 << 63) - 1
"""What an int64 of the Kubernetes API holds."""

_FORM: Final = re.compile(
    r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?[0-9]{1,2}))?",
    re.ASCII,
)
_FACTORS: Final = {
    "m": decimal.Decimal("0.001"),
    **{prefix: decimal.Decimal(1000) ** power for power, prefix in enumerate("kMGTPE", start=1)},
    **{
        f"{prefix}i": decimal.Decimal(1024) ** power
        for power, prefix in enumerate("KMGTPE", start=1)
    },
}


def parse_bytes(text: str) -> int:
    """The quantity in bytes; a fraction of a byte is rounded up, as Kubernetes does.

    Raises:
        QuantityParseError: not a quantity, negative, or more than an int64 holds.
    """
    found = _FORM.fullmatch(text) if len(text) <= TEXT_LENGTH_MAX else None
    if found is None:
        raise errors.QuantityParseError(
            f"{text[:TEXT_LENGTH_MAX]!r} is not a byte count: write a number, or one with a "
            "suffix such as Gi or G",
            text=text[:TEXT_LENGTH_MAX],
        )
    number, suffix, exponent = found.groups()
    with decimal.localcontext() as context:
        context.prec = 100
        value = decimal.Decimal(number)
        if suffix is not None:
            value *= _FACTORS[suffix]
        elif exponent is not None:
            value = value.scaleb(int(exponent))
        amount_bytes = int(value.to_integral_value(decimal.ROUND_CEILING))
    if amount_bytes > BYTES_MAX:
        raise errors.QuantityParseError(
            f"{text!r} is more bytes than the Kubernetes API can count", text=text
        )
    return amount_bytes
