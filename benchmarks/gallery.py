"""Makes the pictures of docs/gallery.md by the commands that the page shows, and prints how near projections come.

uv run python -m benchmarks.gallery --flowers128 RUN --sle64 RUN --mine PICTURES --out FOLDER
"""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from data.drawn import encoded
from data.files.atomic import write_bytes
from data.images import image_grid, open_image
from pipelines.cli import run

COMMANDS = (
    "sample --run runs/flowers128 --out samples --num 36",
    "sample --run runs/flowers128 --out usual/1.0 --seeds 0-7",
    "sample --run runs/flowers128 --out usual/0.7 --seeds 0-7 --truncation 0.7",
    "sample --run runs/flowers128 --out usual/0.4 --seeds 0-7 --truncation 0.4",
    "walk --run runs/flowers128 --out walk.webp --seeds 14,2,19,26 --frames 48 --loop",
    "mix --run runs/flowers128 --out mix.png --contents 0-5 --styles 7,14,19,30",
    "mix --run runs/sle64 --out mix-sle.png --contents 0-7 --styles 8-11",
    "project --run runs/flowers128 --data mine --out projected --refine-steps 300",
    "mix --run runs/flowers128 --out restyled.png --contents projected --styles 0,7,14,19",
    "walk --run runs/flowers128 --projected projected --out between.webp --frames 40 --loop",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the runs and the pictures are."""

    flowers128: Path
    """Run of `projected` at 128 px."""
    sle64: Path
    """Run of `sle` at 64 px."""
    mine: Path
    """Folder of a few pictures to project."""
    out: Path
    """Folder for everything."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    places = {"runs/flowers128": options.flowers128, "runs/sle64": options.sle64, "mine": options.mine}
    for name, place in places.items():
        link = options.out / name
        if not link.exists():
            link.symlink_to(place.resolve())
    os.chdir(options.out)
    for command in COMMANDS:
        print(f"codegan {command}", flush=True)
        run(shlex.split(command))
    save("samples", open_image("samples/grid.png"))
    save("truncation", image_grid(drawn([Path("usual") / scale for scale in ("1.0", "0.7", "0.4")]), columns=8))
    save("mix", open_image("mix.png"))
    save("mix-sle", open_image("mix-sle.png"))
    save("restyled", open_image("restyled.png"))
    projected = json.loads(Path("projected/results.json").read_text())["pictures"]
    save("projected", image_grid([open_image(f"projected/{picture['file']}") for picture in projected], columns=3))
    print("| picture | PSNR, dB |\n|---|---|")
    for picture in projected:
        print(f"| {picture['key']} | {picture['psnr']:.1f} |")


def drawn(folders: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """The pictures of all folders, in order."""
    return [open_image(file) for folder in folders for file in sorted(folder.glob("0*.png"))]


def save(name: str, image_u8: NDArray[np.uint8]) -> None:
    write_bytes(Path(f"gallery-{name}.webp"), encoded(image_u8, "webp"))


if __name__ == "__main__":
    main()
