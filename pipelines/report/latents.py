"""Stored latents against generated ones: a histogram for each channel, and both in the plane of their main axes."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import fit, image_grid, to_array, to_image
from pipelines.report.charts import histograms, plane_chart
from pipelines.report.pictures import embed_array
from pipelines.report.run_folder import RunFolder

type Array = NDArray[np.float64]

SAMPLES = 128
_BINS, _POOLED = 32, 4
_ROWS, _STEPS, _SIDE, _STRIP_BYTES = 4, 8, 160, 800_000


def latents(run: RunFolder) -> dict[str, Any]:
    """Raises `Missing` without weights or the store."""
    generator, store = run.generator, run.store
    stored = torch.from_numpy(store.read_spaced(SAMPLES))
    codes = torch.cat([generator.codes(generator.noise([seed]), seed) for seed in range(SAMPLES)])
    generated = generator.scale.to_latents(codes).float().cpu()
    channels = [
        _channel(f"Channel {number}", stored[:, number].numpy(), generated[:, number].numpy())
        for number in range(stored.shape[1])
    ]
    plane = project(_pooled(stored), _pooled(generated))
    spoken = f"Principal axes of {len(stored)} stored and {len(generated)} generated latents"
    return {
        "stored": len(stored),
        "generated": len(generated),
        "channels": channels,
        "plane": plane_chart(spoken, plane.stored, plane.generated),
        "explained": [f"{share:.0%}" for share in plane.explained],
    }


def _channel(title: str, stored: NDArray[np.float32], generated: NDArray[np.float32]) -> dict[str, Any]:
    shares = shares_of_bins(stored, generated)
    common = f"{np.minimum(*shares).sum():.0%}"
    svg = histograms(f"{title}: stored and generated share {common}", *(part.tolist() for part in shares))
    return {"title": title, "svg": svg, "common": common}


def shares_of_bins(stored: NDArray[np.float32], generated: NDArray[np.float32]) -> tuple[Array, Array]:
    """The share of the values in each bin; the few beyond the outer 0.1 % of the stored ones count in the last bins."""
    low, high = (float(value) for value in np.quantile(stored, (0.001, 0.999)))
    margin = 0.15 * (high - low) or 0.1
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    counted, drawn = (np.histogram(values.clip(edges[0], edges[-1]), edges)[0] for values in (stored, generated))
    return counted / stored.size, drawn / generated.size


def _pooled(values: Tensor) -> Array:
    """(N, C, H, W) -> (N, features), means over a grid of at most 4 x 4."""
    side = min(_POOLED, values.shape[-1])
    pooled: Array = torch.nn.functional.adaptive_avg_pool2d(values, side).flatten(1).double().numpy()
    return pooled


class Plane(NamedTuple):
    stored: Array  # (N, 2)
    generated: Array  # (M, 2)
    explained: tuple[float, float]  # share of the stored ones' variance along each axis


def project(stored: Array, generated: Array) -> Plane:
    """Both sets in the plane of the first two principal axes of the stored one, whose mean is the origin."""
    centre = stored.mean(0)
    _, singular, axes = np.linalg.svd(stored - centre, full_matrices=False)
    plane = axes[:2].T
    if plane.shape[1] < 2:  # a single latent has a single axis
        plane = np.column_stack([plane, np.zeros(len(plane))])
    shares = np.append(singular**2, 0.0) / max(float((singular**2).sum()), 1e-30)
    return Plane((stored - centre) @ plane, (generated - centre) @ plane, (float(shares[0]), float(shares[1])))


def interpolation(run: RunFolder) -> dict[str, Any]:
    """Pictures on the way from one seed to the next; raises `Missing` without weights."""
    z = run.generator.noise(range(2 * _ROWS))
    pairs = [(z[[row]], z[[row + 1]]) for row in range(0, len(z), 2)]
    pictures = [
        _fitted(picture)
        for start, stop in pairs
        for picture in run.generator.between([(start, stop, share) for share in np.linspace(0, 1, _STEPS)], seed=0)
    ]
    ends = ", ".join(f"{seed} to {seed + 1}" for seed in range(0, 2 * _ROWS, 2))
    return {"picture": embed_array(image_grid(pictures, columns=_STEPS), _STRIP_BYTES), "ends": ends}


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W), no larger than a strip shows it."""
    image = to_image(picture)
    return to_array(fit(image, min(_SIDE, image.width)))
