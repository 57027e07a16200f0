"""Drawing images from a trained run."""

from dataclasses import dataclass
from pathlib import Path

from data.console import ProgressReport, finish
from data.errors import UsageError
from data.images import image_grid, save_png
from stage2_codegen.images import ImageGenerator

GRID = 64  # images at most in grid.png


@dataclass(frozen=True)
class SampleConfig:
    """Draw full-resolution images from a trained run.

    Example: codegan sample --run runs/photos --out samples --num 64
    """

    run: Path
    """Run folder of `codegan train`."""
    out: Path
    """Folder for 000000.png ... and grid.png; images that are there already are kept."""
    num: int = 64
    """How many images."""
    seed: int = 0
    """Seed of the first image; image i has seed + i and depends on nothing else."""
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
    generator = load_generator(config.run, config.best)
    grid = []
    with ProgressReport("sample", config.num, "img") as report:
        for start in range(0, config.num, config.batch_size):
            numbers = range(start, min(start + config.batch_size, config.num))
            images = generator([config.seed + number for number in numbers])
            for number, image in zip(numbers, images, strict=True):
                save_png(config.out / f"{number:06d}.png", image)
            grid += list(images[: max(0, GRID - start)])
            report.update(numbers.stop)
    save_png(config.out / "grid.png", image_grid(grid))
    finish([config.out], ["codegan", "report", "--run", str(config.run)])
