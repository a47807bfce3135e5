"""Line and bar plots as SVG text: no library, no script, nothing fetched.

Colours and fonts come from the style sheet of the page, by class, so that they follow its theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Point = tuple[float, float]
WIDTH: Final = 720
HEIGHT: Final = 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 12, 40
_DOTS_COUNT_MAX: Final = 90
_TICK_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_BAR_HEIGHT: Final = 22
_BAR_LABEL_WIDTH: Final = 250


class Series(NamedTuple):
    """One line. ``tone`` picks its colour, 0 to 7; a dashed one is secondary."""

    name: str
    points: Sequence[Point]
    tone: int = 0
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places between 0 and 1, with the ticks to draw."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[float], float] = field(default=float)

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end; values outside lie at the ends."""
        low, high = self.scale(self.low), self.scale(self.high)
        at = self.scale(min(max(value, self.low), self.high))
        return (at - low) / (high - low) if high > low else 0.5


def linear(label: str, low: float, high: float, *, ticks_count: int = 5) -> Axis:
    """Equal distances; the high end is rounded up to a tick unless ``low`` is not 0."""
    high = high if high > low else low + 1
    step = _step((high - low) / ticks_count)
    first = math.ceil(low / step - 1e-9)
    if low == 0:
        high = step * math.ceil(high / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = [(index * step, compact(index * step)) for index in range(first, last + 1)]
    return Axis(label, low, high, ticks)


def logarithmic(label: str, low: float, high: float) -> Axis:
    """Equal distances for equal factors; between powers of ten 2 and 5 too if there is room."""
    low = max(low, 1e-6)
    high = max(high, low)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inner = (1, 2, 5) if len(decades) <= 4 else (1,)
    values = [factor * 10.0**decade for decade in decades for factor in inner]
    bottom = max(each for each in values if each <= low * 1.001)
    top = next((each for each in values if each >= high * 0.999), values[-1])
    if top <= bottom:
        top = bottom * 2
    ticks = [(each, compact(each)) for each in values if bottom * 0.999 <= each <= top * 1.001]
    return Axis(label, bottom, top, ticks, math.log10)


def nines(label: str, highest_percent: float) -> Axis:
    """Percentiles, each further nine as far as the one before."""
    named = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
    ticks = [(each, f"{each:g}%") for each in named if each <= highest_percent]
    return Axis(label, 0.0, highest_percent, ticks, nines_of)


def nines_of(percent: float) -> float:
    """0 of 0 %, 1 of 90 %, 2 of 99 %."""
    return -math.log10(max(1e-9, 1 - percent / 100))


def percent_of(nines_count: float) -> float:
    """Undoes ``nines_of``."""
    return 100 * (1 - math.pow(10.0, -nines_count))


def lines(
    series: Sequence[Series], *, x: Axis, y: Axis, shaded: Point | None = None, title: str
) -> str:
    """A plot of lines.

    Args:
        shaded: From and to, on ``x``: set apart from the rest, such as the warm-up.
        title: For those who hear the page.
    """
    parts = [_open(HEIGHT, title)]
    if shaded is not None:
        left, right = (_across(x, value) for value in shaded)
        parts.append(
            f'<rect class="shade" x="{left:.1f}" y="{_TOP}" width="{max(0, right - left):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
        if right - left > 52:
            parts.append(f'<text class="tick" x="{left + 5:.1f}" y="{_TOP + 13}">warm-up</text>')
    parts += _grid(x, y)
    for each in series:
        parts += _line(each, x, y)
    parts.append("</svg>")
    return "".join(parts)


def bars(rows: Sequence[tuple[str, float]], *, title: str) -> str:
    """Horizontal bars, each with its value."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    room = WIDTH - _BAR_LABEL_WIDTH - 100
    parts = [_open(len(rows) * _BAR_HEIGHT + 8, title)]
    for index, (name, value) in enumerate(rows):
        top = index * _BAR_HEIGHT + 4
        width = room * value / most
        middle = top + _BAR_HEIGHT / 2 + 4
        parts.append(
            f'<text class="bar-name" x="{_BAR_LABEL_WIDTH - 8}" y="{middle:.1f}">'
            f"{html.escape(name)}</text>"
            f'<rect class="bar tone0" x="{_BAR_LABEL_WIDTH}" y="{top + 3}" width="{width:.1f}" '
            f'height="{_BAR_HEIGHT - 6}" rx="2"/>'
            f'<text class="bar-value" x="{_BAR_LABEL_WIDTH + width + 6:.1f}" y="{middle:.1f}">'
            f"{compact(value)}</text>"
        )
    parts.append("</svg>")
    return "".join(parts)


def legend(series: Sequence[Series]) -> str:
    """Names beside their colours; nothing for a single line."""
    if len(series) < 2:
        return ""
    items = "".join(
        f'<span class="key"><i class="swatch tone{each.tone % 8}'
        f'{" dashed" if each.dashed else ""}"></i>{html.escape(each.name)}</span>'
        for each in series
    )
    return f'<p class="legend">{items}</p>'


def compact(value: float) -> str:
    """A short number for a tick: 12k, 0.05, 3.5M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"


def _step(rough: float) -> float:
    power = math.pow(10.0, math.floor(math.log10(rough)))
    return next(each for each in _TICK_STEPS if each * power >= rough * 0.999) * power


def _open(height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{html.escape(title)}</title>"
    )


def _across(x: Axis, value: float) -> float:
    return _LEFT + x.place(value) * (WIDTH - _LEFT - _RIGHT)


def _up(y: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - y.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _grid(x: Axis, y: Axis) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value, name in y.ticks:
        at = _up(y, value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>'
            f'<text class="tick end" x="{_LEFT - 7}" y="{at + 4:.1f}">{name}</text>'
        )
    for value, name in x.ticks:
        at = _across(x, value)
        parts.append(
            f'<line class="grid faint" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>'
            f'<text class="tick middle" x="{at:.1f}" y="{bottom + 16}">{name}</text>'
        )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
        f'<text class="label middle" x="{(_LEFT + right) / 2:.0f}" y="{HEIGHT - 6}">'
        f"{html.escape(x.label)}</text>"
        f'<text class="label middle" transform="translate(14 {middle:.0f}) rotate(-90)">'
        f"{html.escape(y.label)}</text>"
    )
    return parts


def _line(series: Series, x: Axis, y: Axis) -> list[str]:
    places = [(_across(x, a), _up(y, b)) for a, b in series.points]
    if not places:
        return []
    tone = f"tone{series.tone % 8}"
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = []
    if series.filled and len(places) > 1:
        bottom = HEIGHT - _BOTTOM
        area = f"{places[0][0]:.1f},{bottom} {path} {places[-1][0]:.1f},{bottom}"
        parts.append(f'<polygon class="area {tone}" points="{area}"/>')
    dashed = " dashed" if series.dashed else ""
    parts.append(f'<polyline class="line {tone}{dashed}" points="{path}"/>')
    if len(places) <= _DOTS_COUNT_MAX:
        # Wide and invisible around each dot: what a pointer has to hit to read the value.
        parts += [
            f'<g class="dot {tone}"><title>{html.escape(series.name)} at {compact(a)}: '
            f'{compact(b)}</title><circle class="reach" cx="{px:.1f}" cy="{py:.1f}" r="7"/>'
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{2.6 if len(places) < 45 else 1.8}"/></g>'
            for (a, b), (px, py) in zip(series.points, places, strict=True)
        ]
    return parts
