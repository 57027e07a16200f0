"""Drawing images from a trained run."""

import math
from collections.abc import Collection
from contextlib import ExitStack
from itertools import batched

import numpy as np
from numpy.typing import NDArray

from data.advice import Action, Advice, Done
from data.console import ProgressReport
from data.drawn import ARCHIVES, check_archive, claim_folder, open_pictures
from data.errors import UsageError
from data.files.atomic import lock
from data.images import image_grid, open_image, save_png
from data.shared import RunName, find_run, own_folder
from data.sizes import height_width
from data.spacing import share_of
from pipelines.configs import DrawnConfig, SampleConfig
from pipelines.seeds import parse_seeds
from stage1_autoencoder.training.processes import make_accelerator, on_main
from stage2_codegen.image_generator import ImageGenerator

GRID, GRID_PIXELS = 64, 1 << 26  # images and pixels at most in grid.png


def load_generator(run: RunName, best: bool = False, allow_hosts: Collection[str] = ()) -> ImageGenerator:
    """The generator of a `train` run, the newest or the best scored: `pipe(seeds=[0, 1])` -> uint8 (2, 3, H, W).

    The run is a folder, a .zip of one, such a file on one of `allow_hosts` (https://HOST/RUN.zip#sha256=...), or a
    repository of the Hugging Face hub (hf://USER/NAME). Raises what `find_run` and `ImageGenerator.load` raise.
    """
    return ImageGenerator.load(find_run(run, allow_hosts), best)


def open_generator(config: DrawnConfig) -> ImageGenerator:
    """The generator that the flags of a verb name, set to draw what they ask for."""
    generator = load_generator(config.run, config.best, config.allow_host)
    return generator.drawing(config.class_name, config.truncation)


def _told(generator: ImageGenerator, config: SampleConfig) -> ImageGenerator:
    """The generator, told what to draw by a picture where the flags give one."""
    if not config.like:
        return generator
    picture = open_image(config.like, generator.image_size)
    if not config.vgg_weights:
        return generator.like(picture)
    from pipelines.metadata import describer  # late: loads torchvision, which few samples need

    return generator.like(picture, describer(config.vgg_weights))


def sample(config: SampleConfig) -> Done:
    """Write the images and, into a folder, a grid of the first ones; several processes share the work."""
    seeds = parse_seeds("--seeds", config.seeds) if config.seeds else range(config.seed, config.seed + config.num)
    accelerator = make_accelerator()
    is_archive = config.out.suffix in ARCHIVES
    if is_archive and accelerator.num_processes > 1:
        what = f"--out {config.out}: an archive is written by one process"
        raise UsageError(what, "leave out --processes, or give a folder")
    generator = _told(open_generator(config), config)
    with ExitStack() as stack:
        on_main(accelerator, lambda: _claim(config, len(seeds), stack))
        put = stack.enter_context(open_pictures(config.out, len(seeds), generator.image_size, config.format))
        mine = share_of(len(seeds), accelerator.process_index, accelerator.num_processes)
        grid: list[NDArray[np.uint8]] = []
        most = max(1, min(GRID, GRID_PIXELS // math.prod(height_width(generator.image_size))))
        report = stack.enter_context(ProgressReport("sample", len(mine), "img", accelerator.is_main_process))
        for numbers in batched(mine, config.batch_size):
            images = generator([seeds[number] for number in numbers])
            for number, image in zip(numbers, images, strict=True):
                put(number, image)
            grid += list(images[: max(0, most - len(grid))])
            report.update(numbers[-1] + 1 - mine.start)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process and not is_archive:
            others = seeds[len(grid) : most]  # that other processes drew
            save_png(config.out / "grid.png", image_grid([*grid, *(generator(others) if others else ())]))
    return Done([config.out], Advice(Action.REPORT, {"run": run}) if (run := own_folder(config.run)) else None)


def _claim(config: SampleConfig, num: int, stack: ExitStack) -> None:
    """Keep other commands out of what is written, and see that nothing else is lost."""
    if config.out.suffix in ARCHIVES:
        check_archive(config.out)
        return
    stack.enter_context(lock(config.out))
    claim_folder(config.out, num, config.format)
