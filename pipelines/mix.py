"""A grid of contents and styles, each picture of two seeds."""

from dataclasses import dataclass
from pathlib import Path

from data.console import finish
from data.errors import UsageError
from data.images import image_grid, save_png
from pipelines.sample import load_generator
from pipelines.seeds import parse_seeds

MOST = 4096  # pictures of a grid


@dataclass(frozen=True)
class MixConfig:
    """Draw the contents of some seeds in the styles of others: one column a content, one row a style.

    Example: codegan mix --run runs/photos --out mix.png --contents 0-5 --styles 6-9
    """

    run: Path
    """Run folder of `codegan train`, of a variant with gates: sle or projected."""
    out: Path
    """The .png file of the grid."""
    contents: str = "0-5"
    """Seeds of the columns, as in 3,7,12-20."""
    styles: str = "6-9"
    """Seeds of the rows."""
    gates: str = ""
    """Sides of the maps that the style is taken from, as in 4,8; all by default. Small ones decide more."""
    best: bool = False
    """Use the weights that scored best (`train --score-kimg`) instead of the newest."""


def mix(config: MixConfig) -> None:
    """Write the grid."""
    if config.out.suffix.lower() != ".png" or config.out.is_dir():
        raise UsageError(f"--out {config.out}: is not the name of a .png file", "give one, as in --out mix.png")
    contents, styles = parse_seeds("--contents", config.contents), parse_seeds("--styles", config.styles)
    gates = parse_seeds("--gates", config.gates) if config.gates else None
    if len(contents) * len(styles) > MOST:
        raise UsageError(f"{len(contents)} contents in {len(styles)} styles: are too many", f"{MOST} pictures at most")
    pictures = load_generator(config.run, config.best).mix(contents, styles, gates)
    save_png(config.out, image_grid(pictures.reshape(-1, *pictures.shape[2:]), columns=len(contents)))
    finish([config.out])
