"""What the decoders of a self-supervised critic make of real pictures (FastGAN, figure 14)."""

from typing import Any

import torch
from torch import Tensor

from data.images import fit, image_grid, to_array, to_image, to_uint8
from pipelines.maps import load_critic
from pipelines.report.missing import needing
from pipelines.report.pictures import embed_array
from pipelines.report.run_folder import RunFolder

_PICTURES, _SIDE, _BYTES = 8, 128, 600_000
_QUADRANT = 0  # the upper left


def has_decoders(run: RunFolder) -> bool:
    """Whether the run's critic learns to reconstruct."""
    return run.config.get("model", {}).get("reconstruct", "none") != "none"


@torch.inference_mode()
def decoders(run: RunFolder) -> dict[str, Any]:
    """A sheet with a row for each decoder under what it should have made, and what each row shows.

    Raises `Missing` without weights, the store or a checkpoint.
    """
    generator, latents = run.generator, torch.from_numpy(run.store.read_spaced(_PICTURES))
    with needing("The critic cannot be loaded", "This command goes on with its training:", run.train_command):
        critic = load_critic(run.folder, generator)
    codes = generator.scale.to_codes(latents.to(generator.autoencoder.device))
    _, pairs = critic(codes, quadrant=_QUADRANT)
    (whole, _), (part, target), *others = pairs
    shown = {
        "real pictures": codes,
        "the critic's reconstructions of them": whole,
        "the upper left quarters": target,
        "their reconstructions": part,
    }
    if others:
        shown["reconstructions by the branch that reads half the side"] = others[0][0]
    tiles = [tile for each in shown.values() for tile in _decoded(run, each)]
    return {"sheet": embed_array(image_grid(tiles, columns=len(codes)), _BYTES), "rows": list(shown)}


def _decoded(run: RunFolder, codes: Tensor) -> list[Any]:
    images = run.generator.autoencoder.decode(run.generator.scale.to_latents(codes))
    return [to_array(fit(to_image(picture), _SIDE)) for picture in to_uint8(images).cpu().numpy()]
