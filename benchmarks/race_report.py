"""What a race gave: scores of every look, a table, a curve and a grid; a part of `benchmarks.race`.

Scores are those of `codegan score` on features that no entrant of ours was trained on, SqueezeNet and the offline
network. They are not FID, and of 512 samples: they compare with each other alone.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.race_entrants import Look, Pictures, check, codegan, settings
from benchmarks.race_rivals import SAMPLES
from data.images import image_grid, open_images, save_png
from pipelines.report.charts import HEIGHT, WIDTH, Line, line_chart

type Races = Mapping[str, Sequence[Look]]  # entrant -> its looks, in order

SHOWN = 16  # samples an entrant in the grid
_NAMES = ("fd-squeezenet", "kd-squeezenet", "precision-squeezenet", "recall-squeezenet")
CURVES = {"fd-squeezenet": "Frechet distance, SqueezeNet", "kd-squeezenet": "Kernel distance, SqueezeNet"}
_LEGEND_LINE = 18
_COLOURS = ("#0b62b8", "#c2570c", "#14805e", "#8c4aa8", "#b3243f", "#7a6a00", "#0b7f94", "#6b5b4d")  # as in page.css
_STYLE = (
    "text{font:11px sans-serif;fill:#5f656e}.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#e3e5e8}"
    ".axis{stroke:#5f656e}polyline{fill:none;stroke:currentColor;stroke-width:1.6}circle{fill:currentColor}"
    + "".join(f".line-{number}{{color:{colour}}}" for number, colour in enumerate(_COLOURS))
)


def score(look: Look, folder: Path, pictures: Pictures, weights: Path | None) -> dict[str, Any]:
    """On SqueezeNet with these weights, without any on the offline features; measured once."""
    name = "squeezenet" if weights else "offline"
    target = folder / "scores" / f"{look.number}-{name}" / "scores.json"
    if not target.exists():
        command = f"score --images {look.samples(folder)} --data {pictures.data} --size {pictures.size} --out {target}"
        command += f" --num {SAMPLES} --features {name} --metrics kid fid precision-recall"
        command += f" --feature-weights {weights}" if weights else ""
        check(subprocess.run(codegan(command), stdout=sys.stderr))
    scores: dict[str, Any] = json.loads(target.read_text())
    return scores


def tables(races: Races, out: Path, pictures: Pictures, weights: Path) -> list[str]:
    """Lines of markdown: the last samples of each, what chance alone gives, and the settings."""
    columns = ["entrant", "samples seen", "samples/s", "minutes", *_NAMES, "fd-offline"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for entrant, looks in races.items():
        last, folder = looks[-1], out / entrant
        scores = score(last, folder, pictures, weights)
        offline = score(last, folder, pictures, None)["fd-offline"]
        values = [scores[name]["value"] for name in _NAMES]
        cells = [f"{last.nimg:,}", f"{last.nimg / last.seconds:.1f}", f"{last.seconds / 60:.1f}"]
        cells += [f"{value:.3g}" for value in (*values, offline["value"])]
        lines.append(f"| {entrant} | {' | '.join(cells)} |")
    floors = [scores[name]["real_floor"] for name in _NAMES] + [offline["real_floor"]]
    cells = ["" if floor is None else f"{floor:.3g}" for floor in floors]
    lines.append(f"| two halves of {scores[_NAMES[0]]['num_real']} real pictures | | | | {' | '.join(cells)} |")
    lines += ["", "| entrant | settings, apart from its own |", "|---|---|"]
    return lines + [f"| {entrant} | `{settings(entrant, pictures.size)}` |" for entrant in races]


def save_curves(races: Races, out: Path, pictures: Pictures, weights: Path) -> Path:
    """Scores over minutes, as one SVG that needs no page around it."""
    points = {
        entrant: [(look.seconds / 60, score(look, out / entrant, pictures, weights)) for look in looks]
        for entrant, looks in races.items()
    }
    panels = []
    for metric, title in CURVES.items():
        lines = [
            Line(entrant, [(minutes, scores[metric]["value"]) for minutes, scores in series], number)
            for number, (entrant, series) in enumerate(points.items())
        ]
        panels.append(line_chart(title, title, lines, "minutes").svg)
    path = out / "curves.svg"
    path.write_text(standalone(panels, list(races)))
    return path


def standalone(charts: Sequence[str], names: Sequence[str]) -> str:
    """The SVG of charts of `pipelines.report.charts` side by side, with their colours and a legend below."""
    parts = []
    for number, svg in enumerate(charts):
        place = f'<svg x="{number * WIDTH}" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(f"{place}{svg.removeprefix('<svg ')}")
    for number, name in enumerate(names):
        y = HEIGHT + (number + 1) * _LEGEND_LINE
        parts.append(f'<line class="line-{number}" stroke="currentColor" stroke-width="2" x1="46" x2="66" ')
        parts.append(f'y1="{y - 4}" y2="{y - 4}"/><text x="74" y="{y}">{name}</text>')
    width, height = WIDTH * len(charts), HEIGHT + (len(names) + 1) * _LEGEND_LINE
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f"{head}<style>{_STYLE}</style>{ground}{''.join(parts)}</svg>\n"


def save_grid(races: Races, out: Path, pictures: Pictures) -> Path:
    """A row of real pictures, then a row an entrant: its last samples of the first seeds, none left out."""
    real = open_images(pictures.data, pictures.size)
    images: list[NDArray[np.uint8]] = [real.image(index) for index in range(SHOWN)]
    for entrant, looks in races.items():
        samples = open_images(looks[-1].samples(out / entrant), pictures.size)  # 000000.png comes first
        images += [samples.image(index) for index in range(SHOWN)]
    path = out / "samples.png"
    save_png(path, image_grid(images, columns=SHOWN))
    return path
