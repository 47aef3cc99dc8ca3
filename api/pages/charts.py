"""Charts as SVG: pygal lays them out, and what goes into a page is drawn from that layout alone.

pygal's own SVG carries a style sheet, a script and links that the pages' policy forbids, so only its geometry is taken:
no element and no attribute of it reaches a page that is not made here. Colours are classes (`c0` to `c5`), texts are
escaped by the serializer, each bar is one link that says its figures in words. A chart is drawn once for each width of
a page and the style sheet shows one of them, so that a text is never scaled below 12 px. Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import pygal  # type: ignore[import-untyped] # ships no types
from markupsafe import Markup
from pygal.style import Style  # type: ignore[import-untyped]

TEXT_PX = 12
_GLYPH_PX = 6.6
"""A glyph of that size, on average and generously."""
_TICKS = 4
_ROW_PX = 26
_BREAK_PX = 5
_FIGURE_GLYPHS = 9
"""What a bar's figure may take to the right of it."""
_CUT = "…"
_LABEL_GLYPHS = {"wide": 40, "middle": 28, "narrow": 15}
_SIZES = {"wide": (880, 260), "middle": (560, 240), "narrow": (300, 210)}
"""Width and height of a chart of columns; the width is the least that the style sheet shows it at."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `parts` are drawn on top of each other, `title` says all of it in words, `figure` the sum in short.

    `is_rest`: what all others came to, which may be many times the longest bar. It sets no scale, and is broken off
    there.
    """

    label: str
    title: str
    figure: str
    parts: tuple[int, ...]
    href: str | None = None
    is_rest: bool = False


def columns(bars: Sequence[Bar], *, name: str, tick: Callable[[int], str]) -> Markup:
    """Upright bars, for days: from left to right, with an axis whose marks `tick` writes."""
    top, marks = _scale(max((sum(_drawn(bar)) for bar in bars), default=0))
    return Markup("").join(_columns(bars, size, name, tick, top, marks) for size in _SIZES)


def rows(bars: Sequence[Bar], *, name: str) -> Markup:
    """Bars on their side, for names: from top to bottom, each with its figure at its end."""
    return Markup("").join(_rows(bars, size, name) for size in _SIZES)


def _columns(
    bars: Sequence[Bar], size: str, name: str, tick: Callable[[int], str], top: int, marks: list[int]
) -> Markup:
    width, height = _SIZES[size]
    each = max(len(bar.label) for bar in bars) * _GLYPH_PX + 12
    every = max(1, -(-len(bars) * int(each) // (width - 60)))
    chart = pygal.Bar(**_layout(width, height), range=(0, top))
    chart.y_labels = [{"value": mark, "label": tick(mark)} for mark in marks]
    chart.x_labels = [bar.label if index % every == 0 else "" for index, bar in enumerate(bars)]
    plot = _Plot(chart, [sum(_drawn(bar)) for bar in bars])
    svg = _svg(size, width, height, name)
    axes = SubElement(svg, "g", {"class": "axes", "aria-hidden": "true"})
    for text in plot.texts("axis y"):
        SubElement(axes, "path", {"class": "guide", "d": f"M{plot.left:.1f} {text.y - 4:.1f}H{width - 4}"})
        _text(axes, text.words, plot.left - 5, text.y, "end")
    for text in plot.texts("axis x"):
        _text(axes, text.words, text.x, height - 5, "middle")
    for bar, rect in zip(bars, plot.rects, strict=True):
        link = _link(svg, bar)
        _rect(link, "hit", _Rect(rect.x, plot.top, rect.width, plot.height))
        at = rect.y + rect.height
        for number, share in _shares(bar):
            at -= share * rect.height
            _rect(link, f"c{number}", _Rect(rect.x, at, rect.width, share * rect.height))
    return _markup(svg)


def _rows(bars: Sequence[Bar], size: str, name: str) -> Markup:
    width, height = _SIZES[size][0], _ROW_PX * len(bars) + 8
    most = max((sum(_drawn(bar)) for bar in bars if not bar.is_rest), default=0) or 1
    labels = [_cut(bar.label, _LABEL_GLYPHS[size]) for bar in bars]
    room = max(len(label) for label in labels) * _GLYPH_PX + 12
    share = (width - room - _FIGURE_GLYPHS * _GLYPH_PX) / (width - room)
    chart = pygal.HorizontalBar(**_layout(width, height), range=(0, most / share))
    chart.x_labels, chart.y_labels = [f"{label}__" for label in labels[::-1]], []  # it measures, we write
    plot = _Plot(chart, [min(most, sum(_drawn(bar))) for bar in bars[::-1]])  # it stacks upwards from its floor
    svg = _svg(size, width, height, name)
    first, last = plot.rects[-1], plot.rects[0]  # pygal leaves room for an axis that is not there
    svg.set("viewBox", f"0 {first.y - 2:.1f} {width} {last.y + last.height - first.y + 4:.1f}")
    for bar, label, rect in zip(bars, labels, plot.rects[::-1], strict=True):
        link, middle, at = _link(svg, bar), rect.y + rect.height / 2 + TEXT_PX / 3, rect.x
        _rect(link, "hit", _Rect(0, rect.y, width, rect.height))
        _text(link, label, plot.left - 6, middle, "end")
        for number, share in _shares(bar):
            _rect(link, f"c{number}", _Rect(at, rect.y, share * rect.width, rect.height))
            at += share * rect.width
        if sum(_drawn(bar)) > most:
            _rect(link, "break", _Rect(at - _BREAK_PX * 2, rect.y, _BREAK_PX, rect.height))
        _text(link, bar.figure, at + 6, middle, "start", "figure")
    return _markup(svg)


def _layout(width: int, height: int) -> dict[str, Any]:
    style = Style(label_font_size=TEXT_PX, major_label_font_size=TEXT_PX)
    quiet = {"show_legend": False, "print_values": False, "js": [], "css": [], "truncate_label": -1, "margin": 4}
    return {"width": width, "height": height, "style": style, "spacing": 2, **quiet}


def _drawn(bar: Bar) -> tuple[int, ...]:
    """What a correction took below zero has no length."""
    return tuple(max(0, part) for part in bar.parts)


def _shares(bar: Bar) -> list[tuple[int, float]]:
    """Each part that is there, by its number, and how much of the bar it is."""
    whole = sum(_drawn(bar))
    return [(number, part / whole) for number, part in enumerate(_drawn(bar)) if part]


def _scale(most: int) -> tuple[int, list[int]]:
    """The top of an axis, and its marks: 1, 2 or 5 of some power of ten apart."""
    step = 1
    while step * _TICKS < most:
        digits = str(step)
        step = step * 5 // 2 if digits[0] == "2" else step * 2
    marks = list(range(0, max(1, most) + step, step))
    return marks[-1], marks


@dataclass(frozen=True, slots=True)
class _Rect:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Words:
    x: float
    y: float
    words: str


class _Plot:
    """Where pygal puts things, in the chart's own coordinates."""

    def __init__(self, chart: Any, values: Sequence[int]) -> None:
        chart.add("", values)
        self._plot = next(_of_class(chart.render_tree(), "plot"))
        where = self._plot.get("transform").removeprefix("translate(").removesuffix(")").replace(",", " ").split()
        self.left, self.top = (float(part) for part in where)
        self.height = float(next(_of_class(self._plot, "background")).get("height"))
        bars = next(_of_class(self._plot, "bars"), ())
        self.rects = [self._rect(node) for bar in bars for node in bar if _tag(node) == "rect"]

    def texts(self, axis: str) -> Iterator[_Words]:
        """What is written along an axis."""
        for group in _of_class(self._plot, axis):
            for node in group.iter():
                if _tag(node) == "text" and node.text:
                    yield _Words(self.left + float(node.get("x")), self.top + float(node.get("y")), node.text)

    def _rect(self, node: Any) -> _Rect:
        """A side of no length is left out by pygal."""
        x, y, width, height = (float(node.get(name, 0)) for name in ("x", "y", "width", "height"))
        return _Rect(self.left + x, self.top + y, width, height)


def _of_class(tree: Any, name: str) -> Iterator[Any]:
    return (node for node in tree.iter() if f"{node.get('class', '')} ".startswith(f"{name} "))


def _tag(node: Any) -> str:
    """Without its namespace: pygal takes lxml where there is one. A comment's is a function."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _svg(size: str, width: int, height: int, name: str) -> Element:
    return Element("svg", {"class": size, "viewBox": f"0 0 {width} {height}", "role": "group", "aria-label": name})


def _link(svg: Element, bar: Bar) -> Element:
    """A bar that leads nowhere is read out all the same."""
    link = SubElement(svg, "a", {"href": bar.href}) if bar.href else SubElement(svg, "g", {"role": "img"})
    if bar.is_rest:
        link.set("class", "rest")
    link.set("aria-label", bar.title)
    SubElement(link, "title").text = bar.title
    return link


def _rect(link: Element, kind: str, rect: _Rect) -> None:
    sides = {"x": rect.x, "y": rect.y, "width": rect.width, "height": rect.height}
    SubElement(link, "rect", {"class": kind, **{name: f"{length:.1f}" for name, length in sides.items()}})


def _text(parent: Element, words: str, x: float, y: float, anchor: str, kind: str = "") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    SubElement(parent, "text", {"class": kind, **place} if kind else place).text = words


def _cut(label: str, length: int) -> str:
    return label if len(label) <= length else label[: length - 1] + _CUT


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # noqa: S704 - escaped by the serializer, attributes included
