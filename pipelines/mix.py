"""A grid of contents and styles: the pictures of seeds, or one's own after they were projected."""

import re
from pathlib import Path

from torch import Tensor

from data.advice import Done
from data.errors import UsageError
from data.images import image_grid, save_png
from pipelines.configs import MixConfig
from pipelines.project import load_projected
from pipelines.sample import open_generator
from pipelines.seeds import parse_seeds
from stage2_codegen.image_generator import ImageGenerator, Seeds

MOST = 4096  # pictures of a grid


def mix(config: MixConfig) -> Done:
    """Write the grid."""
    if config.out.suffix.lower() != ".png" or config.out.is_dir():
        raise UsageError(f"--out {config.out}: is not the name of a .png file", "give one, as in --out mix.png")
    contents, styles = _parse("--contents", config.contents), _parse("--styles", config.styles)
    gates = parse_seeds("--gates", config.gates) if config.gates else None
    generator = open_generator(config)
    columns, rows = _pictures(contents, generator), _pictures(styles, generator)
    if len(columns) * len(rows) > MOST:
        raise UsageError(f"{len(columns)} contents in {len(rows)} styles: are too many", f"{MOST} pictures at most")
    pictures = generator.mix(columns, rows, gates)
    save_png(config.out, image_grid(pictures.reshape(-1, *pictures.shape[2:]), columns=len(columns)))
    return Done([config.out])


def _parse(flag: str, text: str) -> list[int] | Path:
    """Seeds, or the folder of a projection; what could be either is a list of seeds."""
    if not re.fullmatch(r"[\d\s,-]+", text) and Path(text).is_dir():
        return Path(text)
    return parse_seeds(flag, text)


def _pictures(given: list[int] | Path, generator: ImageGenerator) -> Seeds | Tensor:
    return load_projected(given, generator) if isinstance(given, Path) else given
