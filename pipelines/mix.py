"""A grid of contents and styles, each picture of two seeds."""

from data.advice import Done
from data.errors import UsageError
from data.images import image_grid, save_png
from pipelines.configs import MixConfig
from pipelines.sample import open_generator
from pipelines.seeds import parse_seeds

MOST = 4096  # pictures of a grid


def mix(config: MixConfig) -> Done:
    """Write the grid."""
    if config.out.suffix.lower() != ".png" or config.out.is_dir():
        raise UsageError(f"--out {config.out}: is not the name of a .png file", "give one, as in --out mix.png")
    contents, styles = parse_seeds("--contents", config.contents), parse_seeds("--styles", config.styles)
    gates = parse_seeds("--gates", config.gates) if config.gates else None
    if len(contents) * len(styles) > MOST:
        raise UsageError(f"{len(contents)} contents in {len(styles)} styles: are too many", f"{MOST} pictures at most")
    pictures = open_generator(config).mix(contents, styles, gates)
    save_png(config.out, image_grid(pictures.reshape(-1, *pictures.shape[2:]), columns=len(contents)))
    return Done([config.out])
