"""The distribution of row norms as an inline drawing, with the gaps beyond which rows are near zero or giant."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gti_diag.render.view import number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 210, 24, 34, 46
NARROWEST = 0.3  # decades that the axis shows at least
MOST_TICKS = 6
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Band:
    """A gap: no norm lies in it."""

    x: float
    width: float
    beyond: str  # what lies on the far side
    label: str
    at: float
    y: int  # of the label: each band has a line of its own
    anchor: str


@dataclass(frozen=True)
class Drawing:
    bars: tuple[Bar, ...]
    bands: tuple[Band, ...]
    ticks: tuple[tuple[float, str], ...]
    median: float
    width: int = WIDTH
    height: int = HEIGHT
    base: int = HEIGHT - BOTTOM
    top: int = TOP

    @property
    def above(self) -> int:
        """Where the picture begins: without labels of gaps, just above the bars."""
        return 0 if self.bands else TOP - 8


def drawing(norms: Mapping[str, Any]) -> Drawing | None:
    """Bars on a logarithmic axis, their heights the logarithms of 1 + count: one row must be seen beside 50,000."""
    histogram = norms.get("histogram")
    if not histogram:
        return None
    edges, counts = histogram["log10_edges"], histogram["counts"]
    low, high = edges[0], edges[-1]
    if high - low < NARROWEST:
        low, high = (low + high - NARROWEST) / 2, (low + high + NARROWEST) / 2
    place = lambda value: LEFT + (WIDTH - 2 * LEFT) * (value - low) / (high - low)  # noqa: E731
    most = math.log1p(max(counts))
    room = HEIGHT - BOTTOM - TOP
    bars = []
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            tall = max(2.0, room * math.log1p(count) / most)
            title = f"{count:,} rows of norm {number(10**left)} to {number(10**right)}"
            bars.append(Bar(place(left), HEIGHT - BOTTOM - tall, max(1.5, place(right) - place(left) - 1), tall, title))
    bands = [
        _band(gap, name, place, TOP - 27 + 18 * line) for line, (name, gap) in enumerate(norms["gaps"].items()) if gap
    ]
    return Drawing(tuple(bars), tuple(bands), _ticks(low, high, place), place(math.log10(norms["median"])))


def _band(gap: Mapping[str, float], name: str, place: Any, y: int) -> Band:
    left, right = place(math.log10(gap["low"])), place(math.log10(gap["high"]))
    middle = (left + right) / 2
    anchor = "start" if middle < WIDTH / 4 else "end" if middle > 3 * WIDTH / 4 else "middle"
    at = {"start": left, "middle": middle, "end": right}[anchor]
    side = "left" if name == "near_zero" else "right"
    beyond = f"{gap['beyond']:,} {name.replace('_', ' ')} to the {side}"
    return Band(left, right - left, beyond, f"gap; {beyond}", at, y, anchor)


def _ticks(low: float, high: float, place: Any) -> tuple[tuple[float, str], ...]:
    """Powers of ten; some multiples as well where few fit."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 3, 5, 7) if high - low < 2 else (1,)
    values = [math.log10(step) + decade for decade in decades for step in steps]
    inside = [value for value in values if low <= value <= high] or [low, high]
    inside = inside[:: -(-len(inside) // MOST_TICKS)]
    return tuple((place(value), _power(value)) for value in inside)


def _power(exponent: float) -> str:
    """10⁻⁷; near 1 the number itself."""
    whole = round(exponent)
    if abs(exponent - whole) < 1e-9 and abs(whole) > 2:
        return "10" + str(whole).translate(SUPERSCRIPTS)
    return f"{10**exponent:g}" if abs(exponent - whole) < 1e-9 else number(10**exponent)
