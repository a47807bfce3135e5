"""What Prometheus is asked: one expression for all volumes, that old data cannot answer.

``rate(x[1h])`` goes on giving values for most of an hour after ``x`` has stopped, smaller and
smaller ones, at timestamps that look fresh: a busy volume whose exporter died would cool down. It
does the same, upwards, for a volume that is only minutes old. So every series that an expression
looks back on must have been there at both ends of the range: the expression is asked together with
what it looks back on, now and a range ago. Where that is missing there is no sample, and heat with
too few samples is Unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_domain import errors

WINDOW_MARK: Final = "$window"
"""Stands in a template for the sampling window of the policies that ask."""
TEMPLATE_LENGTH_MAX: Final = 4096

STEPS_COUNT: Final = 30
"""Samples of a volume in a window, beside the one at its beginning."""
STEP_SECONDS_MIN: Final = 15.0
"""Less is rarely scraped."""

_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
      | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
      | (?P<number>[0-9.][0-9A-Za-z_.]*)
      | (?P<mark>.)""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTemplate:
    """A PromQL expression that yields the IOPS of every volume, and the label that names it.

    Raises:
        ConfigurationError: it is empty, not closed, or looks at the past in a way that hides how
            old the data is; the message says what to change.
    """

    expression: str
    volume_label: str

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.volume_label):
            raise errors.ConfigurationError(
                f"the volume label {self.volume_label[:100]!r} is not the name of a Prometheus"
                " label: give the one whose value is the volume, such as pv_name"
            )
        if not self.expression.strip() or len(self.expression) > TEMPLATE_LENGTH_MAX:
            raise errors.ConfigurationError(
                f"the metrics query must have 1 to {TEMPLATE_LENGTH_MAX} characters and has"
                f" {len(self.expression)}"
            )
        _ranges(self._within("1h"))

    def rendered(self, window_seconds: float) -> str:
        """The expression for one window, held to data that is there at both ends of its ranges.

        Args:
            window_seconds: Above 0.
        """
        expression = self._within(promql_duration(window_seconds))
        guards = dict.fromkeys(
            guard
            for found in _ranges(expression)
            for guard in (found.selector, f"{found.selector} offset {found.length}")
        )
        parts = [f"({expression})", *(f"on ({self.volume_label}) {guard}" for guard in guards)]
        return " and ".join(parts)

    def _within(self, window: str) -> str:
        return self.expression.strip().replace(WINDOW_MARK, window)


class Steps(NamedTuple):
    """When an expression is evaluated: at the end of the window, and so many steps before it."""

    step_seconds: float
    steps_count: int


def steps(window_seconds: float) -> Steps:
    """Evaluations for a window: some thirty, and none closer than series are scraped."""
    step_seconds = min(window_seconds, max(STEP_SECONDS_MIN, window_seconds / STEPS_COUNT))
    return Steps(step_seconds, max(1, math.floor(window_seconds / step_seconds + 1e-9)))


def promql_duration(seconds: float) -> str:
    """A duration in Prometheus' notation, in its largest whole unit: ``1h``, ``90m``, ``1500ms``.

    Args:
        seconds: Above 0; rounded up to a millisecond.
    """
    millis = max(1, math.ceil(round(seconds * 1000, 3)))
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if millis % length == 0:
            return f"{millis // length}{unit}"
    return f"{millis}ms"


class _Range(NamedTuple):
    """A selector that looks back, and how far."""

    selector: str
    length: str


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def _tokens(expression: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(expression):
        kind = found.lastgroup
        assert kind is not None, expression
        if kind != "space":
            yield _Token(kind, found.group(), found.start(), found.end())


def _ranges(expression: str) -> list[_Range]:
    """Every range selector of an expression.

    Raises:
        ConfigurationError: the expression is not closed, or hides how old its data is.
    """
    seen: list[_Token] = []
    opened: list[int] = []
    """Indices of the tokens that open what has not been closed yet."""
    found: list[_Range] = []
    for token in _tokens(expression):
        _refuse(token, expression, inside_braces=bool(opened) and seen[opened[-1]].text == "{")
        if token.kind == "mark" and token.text in "([{":
            opened.append(len(seen))
        elif token.kind == "mark" and token.text in _CLOSES:
            if not opened or seen[opened[-1]].text != _CLOSES[token.text]:
                raise _unfit(expression, f"{token.text!r} closes nothing")
            opening = opened.pop()
            if token.text == "]":
                length = expression[seen[opening].end : token.start].strip()
                found.append(_Range(_selector_before(opening, seen, expression), length))
        seen.append(token)
    if opened:
        raise _unfit(expression, f"{seen[opened[-1]].text!r} is not closed")
    return found


def _selector_before(bracket: int, seen: list[_Token], expression: str) -> str:
    """The text of the selector that the bracket at that index makes a range of."""
    first = last = bracket - 1
    if first >= 0 and seen[first].text == "}":
        depth = 0
        while first >= 0:
            depth += {"}": 1, "{": -1}.get(seen[first].text, 0)
            if depth == 0:
                break
            first -= 1
        if first > 0 and seen[first - 1].kind == "word" and _is_metric(seen[first - 1].text):
            first -= 1
    elif first < 0 or seen[first].kind != "word":
        raise _unfit(expression, "a range must follow a metric: subqueries hide how old data is")
    content = expression[seen[bracket].end :].partition("]")[0]
    if ":" in content:
        raise _unfit(expression, "subqueries hide how old data is")
    return expression[seen[first].start : seen[last].end]


def _is_metric(word: str) -> bool:
    """Whether a word before a brace is the name of its metric, not an operator."""
    return word.lower() not in ("and", "or", "unless", "atan2", "bool")


def _refuse(token: _Token, expression: str, *, inside_braces: bool) -> None:
    if token.kind == "mark" and token.text == "#":
        raise _unfit(expression, "comments are not possible: more is put behind it")
    if token.kind == "mark" and token.text in "\"'`":
        raise _unfit(expression, "a string is not closed")
    if token.kind == "mark" and token.text == "$":
        raise _unfit(expression, f"the only variable is {WINDOW_MARK}")
    if token.kind == "mark" and token.text == "@":
        raise _unfit(expression, "'@' asks for another time than that of the sample")
    if token.kind == "word" and token.text.lower() == "offset" and not inside_braces:
        raise _unfit(expression, "'offset' makes old data look new")


def _unfit(expression: str, why: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"the metrics query {expression[:200]!r} cannot be used: {why}"
    )


OPENEBS: Final = QueryTemplate(
    expression=f"rate(openebs_volume_iops[{WINDOW_MARK}])", volume_label="volume"
)
"""``openebs_volume_iops{volume="..."}``, a counter."""

MAYASTOR: Final = QueryTemplate(
    expression=(
        f"sum by (pv_name) (rate(volume_num_read_ops[{WINDOW_MARK}])"
        f" + rate(volume_num_write_ops[{WINDOW_MARK}]))"
    ),
    volume_label="pv_name",
)
"""What Mayastor's own exporter says of volumes.

It has no metric of IOPS: ``volume_num_read_ops`` and ``volume_num_write_ops`` count operations
since the volume's nexus was made, with the labels ``node`` and ``pv_name`` (``pvc-`` and the
volume's id). Exported as gauges, but they only rise, so ``rate`` is right. A nexus that moves to
another node begins at 0 there: the sum over nodes holds what it did on both.

Source: github.com/openebs/mayastor-extensions, metrics-exporter/src/bin/io_engine/collector
(mod.rs, nexus_stat.rs); openebs.io/docs, Replicated PV Mayastor, Monitoring.
"""

PRESETS: Final = {"openebs": OPENEBS, "mayastor": MAYASTOR}
