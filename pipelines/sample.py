"""Drawing images from a trained run."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.console import ProgressReport, finish
from data.images import image_grid, save_png
from pipelines.configs import DrawnConfig, SampleConfig
from pipelines.drawn_folder import claim_folder, image_file
from pipelines.seeds import parse_seeds
from stage2_codegen.image_generator import ImageGenerator

GRID = 64  # images at most in grid.png


def load_generator(run: str | Path, best: bool = False) -> ImageGenerator:
    """The generator of a `train` run, the newest or the best scored: `pipe(seeds=[0, 1])` -> uint8 (2, 3, H, W)."""
    return ImageGenerator.load(run, best)


def open_generator(config: DrawnConfig) -> ImageGenerator:
    """The generator that the flags of a verb name, set to draw what they ask for."""
    return load_generator(config.run, config.best).drawing(config.class_name, config.truncation)


def sample(config: SampleConfig) -> None:
    """Write the images, then a grid of the first ones."""
    seeds = parse_seeds("--seeds", config.seeds) if config.seeds else range(config.seed, config.seed + config.num)
    generator = open_generator(config)
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
