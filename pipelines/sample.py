"""Drawing images from a trained run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.console import ProgressReport, finish
from data.errors import UsageError
from data.images import image_grid, save_png
from pipelines.drawn_folder import claim_folder, image_file
from pipelines.seeds import parse_seeds
from stage2_codegen.image_generator import ImageGenerator

GRID = 64  # images at most in grid.png


@dataclass(frozen=True)
class SampleConfig:
    """Draw full-resolution images from a trained run.

    Example: codegan sample --run runs/photos --out samples --num 64
    """

    run: Path
    """Run folder of `codegan train`."""
    out: Path
    """Folder for 000000.png ... and grid.png. What an earlier `sample` drew there is replaced, nothing else."""
    num: int = 64
    """How many images."""
    seed: int = 0
    """Seed of the first image; image i has seed + i and depends on nothing else."""
    seeds: str = ""
    """Seeds of the images, as in 3,7,12-20, instead of --num and --seed."""
    batch_size: int = 16
    """Images drawn between two writes; does not change them."""
    best: bool = False
    """Use the weights that scored best (`train --score-kimg`) instead of the newest."""


def load_generator(run: str | Path, best: bool = False) -> ImageGenerator:
    """The generator of a `train` run, the newest or the best scored: `pipe(seeds=[0, 1])` -> uint8 (2, 3, H, W)."""
    return ImageGenerator.load(run, best)


def sample(config: SampleConfig) -> None:
    """Write the images, then a grid of the first ones."""
    if config.num < 1 or config.batch_size < 1 or config.seed < 0:
        raise UsageError("--num and --batch-size: must be positive, --seed not negative", "codegan sample --help")
    seeds = parse_seeds("--seeds", config.seeds) if config.seeds else range(config.seed, config.seed + config.num)
    generator = load_generator(config.run, config.best)
    claim_folder(config.out, len(seeds))
    grid: list[NDArray[np.uint8]] = []
    with ProgressReport("sample", len(seeds), "img") as report:
        for start in range(0, len(seeds), config.batch_size):
            images = generator(seeds[start : start + config.batch_size])
            for number, image in enumerate(images, start):
                save_png(image_file(config.out, number), image)
            grid += list(images[: max(0, GRID - start)])
            report.update(start + len(images))
    save_png(config.out / "grid.png", image_grid(grid))
    finish([config.out], ["codegan", "report", "--run", str(config.run)])
