"""A film of the pictures on the way from one seed to the next."""

import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import batched, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.advice import Done
from data.console import ProgressReport
from data.drawn import claim_folder, picture_file
from data.errors import InputError, UsageError
from data.files.atomic import lock, publish, write_bytes
from data.images import save_png, to_image
from pipelines.configs import WalkConfig
from pipelines.project import load_projected
from pipelines.sample import open_generator
from pipelines.seeds import parse_seeds
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator

DECODED_AT_ONCE = 8
FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}  # that hold a whole film; gathered in memory
VIDEO = ".mp4"


def walk(config: WalkConfig) -> Done:
    """Draw the frames and write them as the name of `out` says."""
    seeds = parse_seeds("--seeds", config.seeds or "0-3")
    _check(config, seeds)
    generator = open_generator(config)
    z = load_projected(config.projected, generator) if config.projected else generator.noise(seeds)
    if len(z) < 2:
        raise UsageError(f"{config.projected}: holds one picture, which leads nowhere", "project two or more")
    kind = config.out.suffix.lower()
    with ExitStack() as stack:
        if not kind:
            stack.enter_context(lock(config.out))
            claim_folder(config.out, config.frames)
        report = stack.enter_context(ProgressReport("walk", config.frames, "frames"))
        noise_seed = NOISE_SEED if config.projected else seeds[0]
        frames = _counted(film_through(generator, z, config.frames, config.loop, noise_seed), report)
        if not kind:
            for number, frame in enumerate(frames):
                save_png(picture_file(config.out, number), frame)
        elif kind == VIDEO:
            _write_video(config.out, frames, config.fps)
        else:
            write_bytes(config.out, _animation(frames, FORMATS[kind], config.fps))
    return Done([config.out])


def _check(config: WalkConfig, seeds: list[int]) -> None:
    if config.projected and config.seeds:
        raise UsageError("--seeds and --projected: exclude each other", "leave out one of them")
    if len(seeds) < 2:
        raise UsageError(f"--seeds {config.seeds}: leads nowhere", "give two seeds or more, as in --seeds 0,1,2")
    kind = config.out.suffix.lower()
    if kind and kind != VIDEO and kind not in FORMATS:
        known = ", ".join([*FORMATS, VIDEO])
        raise UsageError(f"--out {config.out}: cannot hold a film", f"choose one of {known}, or a folder")
    if kind and config.out.is_dir():
        raise UsageError(f"--out {config.out}: is a folder", "give the name of a file, or a folder without a suffix")
    if kind == VIDEO:
        _video_writer()


def film(generator: ImageGenerator, seeds: list[int], frames: int, loop: bool = False) -> Iterator[NDArray[np.uint8]]:
    """`frames` pictures (3, H, W) at equal steps through the seeds, with all noise besides z that of the first seed.

    The first is that of the first seed, the last that of the last one; in a loop the last comes one step before the
    first.
    """
    return film_through(generator, generator.noise(seeds), frames, loop, seeds[0])


def film_through(
    generator: ImageGenerator, z: Tensor, frames: int, loop: bool, noise_seed: int
) -> Iterator[NDArray[np.uint8]]:
    """The same through z (n, z_dim)."""
    z = torch.cat([z, z[:1]]) if loop else z
    places = np.arange(frames) * (len(z) - 1) / (frames if loop else frames - 1)
    for batch in batched(places, DECODED_AT_ONCE):
        legs = [min(int(place), len(z) - 2) for place in batch]
        points = [(z[[leg]], z[[leg + 1]], place - leg) for leg, place in zip(legs, batch, strict=True)]
        yield from generator.between(points, noise_seed)


def _counted(frames: Iterable[NDArray[np.uint8]], report: ProgressReport) -> Iterator[NDArray[np.uint8]]:
    for number, frame in enumerate(frames, 1):
        yield frame
        report.update(number)


def _animation(frames: Iterator[NDArray[np.uint8]], kind: str, fps: float) -> bytes:
    """A file that plays for ever, in about the colours that its kind allows."""
    first, content = to_image(next(frames)), io.BytesIO()
    options = {"quality": 90} if kind == "WEBP" else {}
    rest = [to_image(frame) for frame in frames]
    first.save(content, kind, save_all=True, append_images=rest, duration=1000 / fps, loop=0, **options)
    return content.getvalue()


def _video_writer() -> Any:
    """A coroutine that takes frames; raises `InputError` where its package is missing."""
    try:
        from imageio_ffmpeg import write_frames
    except ImportError as error:
        fix = "install the extra: `uv pip install codegan[video]`, or choose .webp"
        raise InputError(f"{VIDEO}: needs the package imageio-ffmpeg", fix) from error
    return write_frames


def _write_video(out: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    """H.264, whatever the length: one frame is in memory at a time."""
    first = next(frames)
    _, height, width = first.shape
    with publish(out) as partial:
        writer = _video_writer()(str(partial), (width, height), fps=fps, macro_block_size=2, quality=8)
        writer.send(None)
        for frame in chain([first], frames):
            writer.send(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        writer.close()
