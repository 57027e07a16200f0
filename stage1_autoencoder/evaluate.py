"""Measures how well an autoencoder reconstructs images of several sizes (Liu, Yao, Ren, table 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from data.files.atomic import read_json
from data.images import ImageSet, fit, image_grid, to_array, to_float, to_uint8
from data.prefetch import prefetch
from stage1_autoencoder.default import load_default
from stage1_autoencoder.networks import Autoencoder, is_built_in

# Table 1 of the paper, for factor 4, on faces, by side in pixels. It does not say for which range of pixels.
PAPER_MSE = {128: 1.3e-3, 256: 1.0e-3, 512: 7.5e-4, 1024: 3.5e-4}
MSE_OF_RANGE_2 = 4.0  # peak-to-peak squared of [-1, 1]


class Reconstruction(TypedDict):
    """A row of the table."""

    size: int  # pixels per side
    count: int  # images measured
    mse: float  # mean squared error of images in [-1, 1]
    psnr: float  # dB, of that mean error


@dataclass(frozen=True)
class _Measured:
    """The shape of reconstructions.json."""

    rows: list[Reconstruction]


def psnr(mse: float) -> float:
    """Return the peak signal-to-noise ratio, in dB, for a mean squared error of images in [-1, 1]."""
    return 10 * math.log10(MSE_OF_RANGE_2 / mse) if mse > 0 else math.inf


@torch.inference_mode()
def reconstruction_error(autoencoder: Autoencoder, images_u8: NDArray[np.uint8]) -> float:
    """Return the mean squared error of a batch, uint8 (N, 3, H, W), in [-1, 1] and in fp32.

    Reconstructions are not rounded to 8 bits.
    """
    device = autoencoder.device
    images = to_float(torch.from_numpy(images_u8).to(device))
    return (autoencoder(images) - images).square().mean().item()


@torch.inference_mode()
def comparison(autoencoder: Autoencoder, images_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw one picture (3, ...) of images, uint8 (N, 3, H, W): originals above their reconstructions."""
    decoded = to_uint8(autoencoder(to_float(torch.from_numpy(images_u8).to(autoencoder.device)))).cpu().numpy()
    return image_grid(np.concatenate([images_u8, decoded]), columns=len(images_u8))


def reconstruction_table(
    autoencoder: Autoencoder,
    images: ImageSet,
    sizes: Sequence[int],
    indices: Sequence[int] | None = None,
    limit: int = 256,
) -> list[Reconstruction]:
    """Measure reconstructions at each size, over the first `limit` of `indices` whose shorter side has that size.

    Images are never enlarged, so a size that none of them reaches gives no row.
    """
    chosen = list(range(len(images)) if indices is None else indices)
    rows: list[Reconstruction] = []
    for size in sizes:
        fitting = [i for i in chosen if min(images.sizes[i]) >= size][:limit]
        if not fitting:
            continue

        def load(index: int, size: int = size) -> NDArray[np.uint8]:
            return to_array(fit(images.pil(index), size))[None]

        mse = float(np.mean([reconstruction_error(autoencoder, batch) for batch in prefetch(load, fitting)]))
        rows.append({"size": size, "count": len(fitting), "mse": mse, "psnr": psnr(mse)})
    return rows


def held_out_mse(run: str | Path) -> dict[int, float]:
    """Return the errors of a run or of a default autoencoder on images held out from its training, by size in pixels.

    The result is empty where none were measured. Raises what `load_default` raises.
    """
    if is_built_in(run):
        recorded = load_default(str(run)).state.get("held_out_mse", {})
        return {int(size): mse for size, mse in recorded.items()}
    measured = Path(run) / "reconstructions.json"
    rows = read_json(measured, _Measured)["rows"] if measured.is_file() else []
    return {row["size"]: row["mse"] for row in rows}


def format_table(rows: Sequence[Reconstruction]) -> str:
    """Lay out rows as text, with a line of headings."""
    lines = [f"{'size':>6} {'images':>7} {'MSE in [-1, 1]':>15} {'PSNR dB':>8}"]
    lines += [f"{r['size']:>6} {r['count']:>7} {r['mse']:>15.3e} {r['psnr']:>8.2f}" for r in rows]
    return "\n".join(lines)
