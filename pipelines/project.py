"""Your own pictures in a generator: the z whose picture comes nearest to each."""

from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from data.advice import Done
from data.console import ProgressReport, scan_progress
from data.drawn import claim_folder, picture_file
from data.errors import CorruptError, MismatchError, UsageError
from data.files.atomic import lock, read_json, write_bytes, write_json
from data.images import ImageSet, image_grid, open_images, save_png, to_float
from data.shared import shown
from data.sizes import to_json_size
from pipelines.configs import ProjectConfig
from pipelines.sample import open_generator
from stage1_autoencoder.evaluate import psnr
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator
from stage2_codegen.inversion import REFINING_LR, compared, invert, nearest

RESULTS, VECTORS = "results.json", "projected.safetensors"
AT_ONCE = 8  # pictures that are projected together
DRAWN_AT_ONCE = 16


def project(config: ProjectConfig) -> Done:
    """Project batch by batch, and save after each."""
    generator = open_generator(config)
    hosts = config.allow_host
    pictures = open_images(config.data, generator.image_size, on_progress=scan_progress(), allow_hosts=hosts)
    settings = {
        "run": shown(config.run),
        "nimg": generator.nimg,
        "class": config.class_name,
        "data_fingerprint": pictures.fingerprint,
        "image_size": to_json_size(generator.image_size),
        "steps": config.steps,
        "candidates": config.candidates,
        "refine_steps": config.refine_steps,
    }
    with lock(config.out):
        results, z = _begun(config.out, settings)
        if not results:
            claim_folder(config.out, len(pictures))
        if len(results) < len(pictures):
            search = Search(generator, config.candidates)
        with ProgressReport("project", len(pictures), "pictures") as report:
            report.update(len(results))
            for numbers in batched(range(len(results), len(pictures)), AT_ONCE):
                batch = np.stack([pictures.image(number) for number in numbers])
                z = torch.cat([z, search(batch, config.steps, config.refine_steps)])
                results += [_show(config.out, generator, pictures, number, z[[number]]) for number in numbers]
                write_bytes(config.out / VECTORS, save_tensors({"z": z}))
                write_json(config.out / RESULTS, {"settings": settings, "pictures": results})
                report.update(len(results))
    walk = ["codegan", "walk", "--run", shown(config.run), "--projected", str(config.out), "--out", "walk.webp"]
    return Done([config.out], walk)


def load_projected(folder: Path, generator: ImageGenerator) -> Tensor:
    """The z (N, z_dim) of a folder that `codegan project` wrote for this generator.

    Raises `CorruptError` where they cannot be read, and `MismatchError` for those of another generator.
    """
    if not (folder / RESULTS).is_file():
        raise UsageError(f"{folder}: holds no projected pictures", "give the --out folder of `codegan project`")
    settings, _, z = _read(folder)
    if z.shape[1] != generator.generator.z_dim or settings["nimg"] != generator.nimg:
        raise MismatchError(f"{folder}: was projected into another generator", "project the pictures into this one")
    return z.to(generator.device)


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Tensor]:
    """Settings, the pictures found, and their z (N, z_dim); raises `CorruptError` where these are damaged."""
    try:
        known = read_json(folder / RESULTS)
        settings, pictures, z = known["settings"], known["pictures"], load_tensors((folder / VECTORS).read_bytes())["z"]
        if z.dim() != 2 or len(z) < len(pictures) or "nimg" not in settings:
            raise ValueError("they do not belong together")
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(
            f"{folder}: its projections cannot be read ({error})", "project the pictures into another --out"
        ) from error
    return settings, pictures, z[: len(pictures)]


class Search:
    """From pictures to z; draws its candidates once."""

    def __init__(self, generator: ImageGenerator, candidates: int) -> None:
        self.generator = generator
        self.z = generator.noise(range(candidates))
        drawn = [generator.codes(part, NOISE_SEED) for part in self.z.split(DRAWN_AT_ONCE)]
        self.std = drawn[0].std((0, 2, 3)).clamp(min=1e-3)
        self.candidates = torch.cat([compared(codes) for codes in drawn])

    def __call__(self, pictures_u8: NDArray[np.uint8], steps: int, refine_steps: int = 0) -> Tensor:
        """(n, 3, H, W) -> z (n, z_dim) on the CPU, found by codes and then, if asked, refined by pixels."""
        autoencoder, scale = self.generator.autoencoder, self.generator.scale

        def decoded(codes: Tensor) -> Tensor:
            return autoencoder.decode(scale.to_latents(codes))

        with torch.no_grad():
            pictures = to_float(torch.from_numpy(pictures_u8)).to(self.generator.device)
            codes = scale.to_codes(autoencoder.encode(pictures))
            start = self.z[nearest(codes, self.candidates)]
        generator = self.generator.generator
        z = invert(generator, codes, start, self.std, steps, NOISE_SEED)
        if refine_steps:
            # The encoder's codes of a picture are not those it was drawn from; only pixels lead all the way back.
            z = invert(generator, pictures, z, torch.ones(3).to(z), refine_steps, NOISE_SEED, decoded, REFINING_LR)
        return z.cpu()


def _show(out: Path, generator: ImageGenerator, pictures: ImageSet, number: int, z: Tensor) -> dict[str, Any]:
    """Save a picture beside its projection; what results.json says of it."""
    picture = pictures.image(number)
    z = z.to(generator.device)
    projection = generator.between([(z, z, 0.0)], NOISE_SEED)[0]
    save_png(picture_file(out, number), image_grid([picture, projection], columns=2))
    return {
        "key": pictures.keys[number],
        "psnr": round(psnr_between(picture, projection), 3),
        "file": picture_file(out, number).name,
    }


def psnr_between(picture: NDArray[np.uint8], projection: NDArray[np.uint8]) -> float:
    """In dB, and 99 where they are equal."""
    return min(psnr(float(np.square((picture.astype(float) - projection) / 127.5).mean())), 99.0)


def _begun(out: Path, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], Tensor]:
    """What an earlier run of the same command has found; raises `MismatchError` for one of another."""
    if not (out / RESULTS).is_file():
        return [], torch.empty(0)
    known, pictures, z = _read(out)
    known = {"class": None, "refine_steps": 0, **known}  # earlier versions did not record these
    if differing := [name for name, value in settings.items() if known.get(name) != value]:
        raise MismatchError(f"{out}: holds a projection with another {', '.join(differing)}", "choose another --out")
    return pictures, z
