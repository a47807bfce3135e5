"""Prometheus' answers: bytes to series, series to heat.

Source: Prometheus HTTP API v1, "Range queries", "Expression query result formats".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import heat
from couchestor_operator.ports import metrics_provider

NAME_LENGTH_MAX: Final = 253
"""Of a Kubernetes object: a longer label value names no volume."""
REASON_LENGTH_MAX: Final = 300

ANNOTATIONS: Final = ("PromQL info:", "PromQL warning:")
"""Remarks on the expression. Every other warning means that a part of the data is missing."""


class _Series(msgspec.Struct):
    metric: msgspec.Raw
    values: msgspec.Raw = msgspec.Raw(b"[]")


class _Data(msgspec.Struct):
    resultType: str
    result: msgspec.Raw


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    errorType: str = ""
    error: str = ""
    warnings: list[str] = msgspec.field(default_factory=list)


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_RESULT: Final = msgspec.json.Decoder(list[_Series])
_LABELS: Final = msgspec.json.Decoder(dict[str, str])
_VALUES: Final = msgspec.json.Decoder(list[tuple[float, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What an answer holds, by volume; the samples are still text, to be read one by one."""

    by_volume: Mapping[str, list[msgspec.Raw]]
    unnamed_count: int


def plain(text: str) -> str:
    """Someone else's text, fit for one line of a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[:REASON_LENGTH_MAX])
    return shown + ("..." if len(text) > REASON_LENGTH_MAX else "")


def read(
    body: bytes | bytearray,
    *,
    where: str,
    volume_label: str,
    plain: Callable[[str], str] = plain,
) -> Series:
    """The series of a successful answer; duplicates of a volume stand together.

    Args:
        where: Who answered, for errors.
        plain: Makes the server's own words fit for an error.

    Raises:
        PrometheusParseError: the body is no answer to a range query.
        PrometheusQueryError: it says that the query failed.
        PrometheusConnectionError: it says that a part of the data could not be had: a volume whose
            busiest hour is missing must not look idle.
    """
    try:
        answer = _ANSWER.decode(body)
        if answer.status != "success" or answer.data is None:
            raise errors.PrometheusQueryError(
                f"{where} could not evaluate the metrics query: {plain(_reason(answer))}"
            )
        if answer.data.resultType != "matrix":
            raise errors.PrometheusParseError(
                f"{where} answered a {plain(answer.data.resultType)} where a range of samples"
                " was asked for: set the URL of a Prometheus"
            )
        if missing := [text for text in answer.warnings if not text.startswith(ANNOTATIONS)]:
            raise errors.PrometheusConnectionError(
                f"{where} answered in part only, look at its storage: {plain(missing[0])}"
            )
        found = _RESULT.decode(answer.data.result)
        names = [_LABELS.decode(series.metric).get(volume_label, "") for series in found]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.PrometheusParseError(
            f"{where} answered the metrics query with something that is no answer, set the URL of"
            f" a Prometheus: {plain(str(exc))}"
        ) from exc
    by_volume: dict[str, list[msgspec.Raw]] = {}
    unnamed_count = 0
    for name, series in zip(names, found, strict=True):
        key = metrics_provider.volume_key(name)
        if 0 < len(key) <= NAME_LENGTH_MAX:
            by_volume.setdefault(key, []).append(series.values)
        else:
            unnamed_count += 1
    if unnamed_count and not by_volume:
        raise errors.PrometheusQueryError(
            f"{where} answered {unnamed_count} series, none with the label {volume_label}: set the"
            " volume label to the one that names the volume"
        )
    return Series(by_volume=by_volume, unnamed_count=unnamed_count)


def samples(series: list[msgspec.Raw], *, where: str) -> list[heat.Sample]:
    """The samples of one volume, from all its series.

    Raises:
        PrometheusParseError: they are not pairs of a time and a number.
    """
    try:
        return [
            heat.Sample(at_seconds, float(value))
            for values in series
            for at_seconds, value in _VALUES.decode(values)
        ]
    except (msgspec.MsgspecError, ValueError) as exc:
        raise errors.PrometheusParseError(
            f"{where} answered the metrics query with a sample that is no pair of a time and a"
            " number: set the URL of a Prometheus"
        ) from exc


def complaint(body: bytes | bytearray) -> str:
    """What an answer that is an error says, in its own words; empty where it says nothing."""
    try:
        return _reason(_ANSWER.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _reason(answer: _Answer) -> str:
    return ": ".join(filter(None, (answer.errorType, answer.error))) or "it does not say why"
