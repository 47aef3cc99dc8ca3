"""Every pair of text and ground in `naka.css` has a contrast of WCAG AA, in the light scheme and the dark one.

Reads the custom properties out of the style sheet: no browser is needed.
"""

import re

import pytest

from tests.harness import ROOT

AA_TEXT = 4.5
AA_EDGE = 3.0
"""For what shows where a field or the focus is (WCAG 1.4.11)."""
GROUNDS = ("ground", "raised", "tint")
TEXTS = [
    *((text, ground) for text in ("ink", "soft", "accent") for ground in GROUNDS),
    ("warn", "ground"),
    ("warn", "raised"),
    ("warn", "warn-ground"),
    ("ink", "warn-ground"),
    ("soft", "warn-ground"),
    ("on-accent", "accent"),
    *((tone, ground) for tone in ("good", "bad") for ground in (f"{tone}-ground", "raised", "ground")),
    ("ink", "bad-ground"),
]
EDGES = [("edge", "ground"), ("edge", "raised"), ("accent", "ground"), ("accent", "raised")]
EDGES += [(f"c{number}", "raised") for number in range(6)]  # what charts are drawn in


def schemes() -> dict[str, dict[str, str]]:
    css = (ROOT / "api" / "pages" / "static" / "naka.css").read_text()
    light, dark, *_ = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    )
    return {"light": light, "dark": dark}


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return 0.2126 * _linear(red) + 0.7152 * _linear(green) + 0.0722 * _linear(blue)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_knows_its_ends() -> None:
    assert round(contrast("#000000", "#ffffff"), 9) == 21
    assert contrast("#777777", "#ffffff") < AA_TEXT < contrast("#767676", "#ffffff")


def test_both_schemes_define_the_same_colors() -> None:
    light, dark = schemes().values()
    assert light.keys() == dark.keys()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_edges_stand_out(scheme: str) -> None:
    colors = schemes()[scheme]
    wanted = [(pair, AA_TEXT) for pair in TEXTS] + [(pair, AA_EDGE) for pair in EDGES]
    short = {
        pair: round(found, 2) for pair, least in wanted if (found := contrast(colors[pair[0]], colors[pair[1]])) < least
    }
    assert short == {}
