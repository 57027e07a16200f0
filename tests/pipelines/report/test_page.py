"""The page's colours can be read, by day and by night."""

import math
import re
from pathlib import Path

import pytest

from pipelines.report import page
from pipelines.report.missing import Missing
from pipelines.report.pictures import Embedded

LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): #(\w+)", part))
    for part in Path(page.__file__).with_name("page.css").read_text().split("prefers-color-scheme: dark")[:2]
)


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as the contrast of the web's accessibility guidelines defines it."""
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(colours: dict[str, str]) -> None:
    assert contrast("000", "ffffff") == pytest.approx(21)
    assert colours.keys() == LIGHT.keys() >= {"page", "ink", "soft", *(f"line-{index}" for index in range(8))}
    for name in ("ink", "soft", "warning", "line-0"):  # texts
        assert contrast(colours[name], colours["page"]) >= 4.5, name
        assert contrast(colours[name], colours["panel"]) >= 4.5, name
    for index in range(8):
        assert contrast(colours[f"line-{index}"], colours["page"]) >= 3


def test_an_exact_reconstruction_is_the_best_one_to_a_script_too() -> None:
    picture = Embedded("data:", 1, 1)
    pictures = dict.fromkeys(("original", "decoded", "difference"), picture)
    triples = [{"name": "name", "psnr": psnr, **pictures} for psnr in (20.0, math.inf)]
    content = {"reconstructions": {"triples": triples, "factor": 1, "data": "photos"}}
    html = page.render(
        names=["run"],
        of_generators=True,
        summaries=[],
        of_all=dict.fromkeys(
            ("scores", "samples", "curves", "configuration", "latents", "interpolation", "neighbours", "data"),
            Missing("None.", "codegan"),
        ),
        of_first=content,
    ).decode()
    assert re.findall('data-psnr="([^"]*)"', html) == ["20.0000", "Infinity"]  # a script's spelling; "inf" is none
    assert "PSNR ∞ dB" in html


def test_only_charts_are_kept_from_escaping() -> None:
    folder = Path(page.__file__).parent
    assert re.findall(r"\|\s*safe|autoescape", (folder / "template.html").read_text()) == []
    marked = {path.name for path in folder.glob("*.py") if "Markup(" in path.read_text()}
    assert marked == {"charts.py"}
