"""Bar charts as SVG. Pure.

Colours are classes (`c0` to `c5`), because the pages' policy allows no style in the markup. Each bar is one link whose
label says its figures in words. A chart is drawn for each width of a page, so a text is never scaled below 12 px.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

TEXT_PX = 12
_GLYPH_PX = 6.6
"""Width of a glyph of that size: generous, on average."""
_FILLED = 0.8
"""Share of its place that a bar fills."""
_TICKS = 4
_ROW_PX = 26
_MARGIN_PX = 4
_BREAK_PX = 5
_FIGURE_GLYPHS = 9
"""Room for a bar's figure, to the right of it."""
_CUT = "…"
_LABEL_GLYPHS = {"wide": 40, "middle": 28, "narrow": 15}
_SIZES = {"wide": (880, 260), "middle": (560, 240), "narrow": (300, 210)}
"""Width and height of a chart of columns; the width is the least that the style sheet shows it at."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `parts` are stacked, `title` says all of it in words, `figure` is the sum in short.

    `is_rest`: the sum of all others, which may be many times the longest bar. It sets no scale, and is broken off
    there.
    """

    label: str
    title: str
    figure: str
    parts: tuple[int, ...]
    href: str | None = None
    is_rest: bool = False

    @property
    def drawn(self) -> tuple[int, ...]:
        """The parts without those that a correction took below zero: they have no length."""
        return tuple(max(0, part) for part in self.parts)

    def pieces(self, length: float) -> Iterator[tuple[str, float, float]]:
        """The class, start and length of each part on a bar of `length`."""
        whole = sum(self.drawn) or 1
        for number, (part, end) in enumerate(zip(self.drawn, accumulate(self.drawn), strict=True)):
            if part:
                yield f"c{number}", (end - part) / whole * length, part / whole * length


def columns(bars: Sequence[Bar], *, name: str, tick: Callable[[int], str]) -> Markup:
    """Upright bars for days, from left to right, with an axis whose marks `tick` writes."""
    return Markup("").join(_columns(bars, size, name, tick) for size in _SIZES)


def rows(bars: Sequence[Bar], *, name: str) -> Markup:
    """Horizontal bars for names, from top to bottom, each with its figure at its end."""
    return Markup("").join(_rows(bars, size, name) for size in _SIZES)


def _columns(bars: Sequence[Bar], size: str, name: str, tick: Callable[[int], str]) -> Markup:
    width, height = _SIZES[size]
    marks = _marks(max((sum(bar.drawn) for bar in bars), default=0))
    left = max(len(tick(mark)) for mark in marks) * _GLYPH_PX + 12
    top, floor = 2 * _MARGIN_PX, height - 2 * TEXT_PX
    place = (width - _MARGIN_PX - left) / len(bars)
    label_px = max(len(bar.label) for bar in bars) * _GLYPH_PX + 12
    every = max(1, -(-len(bars) * int(label_px) // (width - 60)))
    svg = _svg(size, width, height, name)
    axes = SubElement(svg, "g", {"class": "axes", "aria-hidden": "true"})
    for mark in marks:
        y = floor - mark / marks[-1] * (floor - top)
        SubElement(axes, "path", {"class": "guide", "d": f"M{left:.1f} {y:.1f}H{width - _MARGIN_PX}"})
        _text(axes, tick(mark), left - 5, y + TEXT_PX / 3, "end")
    for index, bar in enumerate(bars):
        x = left + (index + (1 - _FILLED) / 2) * place
        if index % every == 0:
            _text(axes, bar.label, x + _FILLED * place / 2, height - 5, "middle")
        link = _link(svg, bar)
        _rect(link, "hit", x, top, _FILLED * place, floor - top)
        for kind, start, length in bar.pieces(sum(bar.drawn) / marks[-1] * (floor - top)):
            _rect(link, kind, x, floor - start - length, _FILLED * place, length)
    return _markup(svg)


def _rows(bars: Sequence[Bar], size: str, name: str) -> Markup:
    width, thick = _SIZES[size][0], _FILLED * _ROW_PX
    longest = max((sum(bar.drawn) for bar in bars if not bar.is_rest), default=0) or 1
    labels = [_cut(bar.label, _LABEL_GLYPHS[size]) for bar in bars]
    left = (max(len(label) for label in labels) + 2) * _GLYPH_PX + 12  # two more: names may be of wide letters
    room = width - left - _FIGURE_GLYPHS * _GLYPH_PX - _MARGIN_PX
    svg = _svg(size, width, _ROW_PX * len(bars), name)
    for index, (bar, label) in enumerate(zip(bars, labels, strict=True)):
        y = index * _ROW_PX + (_ROW_PX - thick) / 2
        link, middle, end = _link(svg, bar), y + thick / 2 + TEXT_PX / 3, left
        _rect(link, "hit", 0, y, width, thick)
        _text(link, label, left - 6, middle, "end")
        for kind, start, length in bar.pieces(min(1, sum(bar.drawn) / longest) * room):
            _rect(link, kind, left + start, y, length, thick)
            end = left + start + length
        if sum(bar.drawn) > longest:
            _rect(link, "break", end - _BREAK_PX * 2, y, _BREAK_PX, thick)
        _text(link, bar.figure, end + 6, middle, "start", "figure")
    return _markup(svg)


def _marks(most: int) -> list[int]:
    """The marks of an axis, the last one its top: 1, 2 or 5 times some power of ten apart."""
    step = 1
    while step * _TICKS < most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(0, max(1, most) + step, step))


def _svg(size: str, width: int, height: int, name: str) -> Element:
    return Element("svg", {"class": size, "viewBox": f"0 0 {width} {height}", "role": "group", "aria-label": name})


def _link(svg: Element, bar: Bar) -> Element:
    """The group of a bar; one that leads nowhere is read out all the same."""
    link = SubElement(svg, "a", {"href": bar.href}) if bar.href else SubElement(svg, "g", {"role": "img"})
    if bar.is_rest:
        link.set("class", "rest")
    link.set("aria-label", bar.title)
    SubElement(link, "title").text = bar.title
    return link


def _rect(link: Element, kind: str, x: float, y: float, width: float, height: float) -> None:
    sides = {"x": x, "y": y, "width": width, "height": height}
    SubElement(link, "rect", {"class": kind, **{name: f"{length:.1f}" for name, length in sides.items()}})


def _text(parent: Element, words: str, x: float, y: float, anchor: str, kind: str = "") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    SubElement(parent, "text", {"class": kind, **place} if kind else place).text = words


def _cut(label: str, length: int) -> str:
    return label if len(label) <= length else label[: length - 1] + _CUT


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # noqa: S704 - escaped by the serializer, attributes included
