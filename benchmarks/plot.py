"""Curves on logarithmic axes as SVG: a few panels side by side, which a page shows as it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 46, 44


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve: ``y`` against ``x``, with the lowest and highest of each point; all positive."""

    title: str
    note: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def svg(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels as one picture."""
    rows = ceil(len(panels) / columns)
    width, height = columns * WIDTH, rows * HEIGHT
    drawn = [
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT})">{_panel(p)}</g>'
        for i, p in enumerate(panels)
    ]
    style = "text{font:11px sans-serif;fill:#333}.t{font-weight:bold;font-size:13px}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _panel(panel: Panel) -> str:
    x_ends = _ends(panel.x)
    y_ends = _ends([*panel.low, *panel.high])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x_at(value: float) -> float:
        return LEFT + (right - LEFT) * _share(value, x_ends)

    def y_at(value: float) -> float:
        return bottom - (bottom - TOP) * _share(value, y_ends)

    parts = [
        _text(LEFT, 18, panel.title, "t"),
        _text(LEFT, 34, panel.note),
        _text((LEFT + right) / 2, HEIGHT - 8, panel.x_label, anchor="middle"),
        f'<text transform="translate(12,{(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y_label)}</text>",
    ]
    for value in panel.x:
        at = x_at(value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#eee"/>')
        parts.append(_text(at, bottom + 16, _short(value), anchor="middle"))
    for value in _ticks(y_ends):
        at = y_at(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, at + 4, _short(value), anchor="end"))
    line = " ".join(f"{x_at(a):.1f},{y_at(b):.1f}" for a, b in zip(panel.x, panel.y, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="2"/>')
    for a, b, low, high in zip(panel.x, panel.y, panel.low, panel.high, strict=True):
        whisker = f"M{x_at(a):.1f} {y_at(low):.1f}V{y_at(high):.1f}"
        parts.append(f'<path d="{whisker}" stroke="#0072b2"/>')
        parts.append(f'<circle cx="{x_at(a):.1f}" cy="{y_at(b):.1f}" r="3" fill="#0072b2"/>')
    return "".join(parts)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms of the axis's ends: half a decade at least, and some room."""
    low, high = log10(min(values)), log10(max(values))
    room = max(0.05, (0.5 - (high - low)) / 2)
    return low - room, high + room


def _share(value: float, ends: tuple[float, float]) -> float:
    return (log10(value) - ends[0]) / (ends[1] - ends[0])


def _ticks(ends: tuple[float, float]) -> list[float]:
    decades = range(floor(ends[0]), ceil(ends[1]) + 1)
    values = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    return [v for v in values if ends[0] <= log10(v) <= ends[1]]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'
