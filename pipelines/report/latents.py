"""Stored latents against generated ones: a histogram for each channel, and both in the plane of their main axes."""

from html import escape
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import fit, image_grid, to_array
from data.seeds import IMAGE_NOISE, derive_seed
from pipelines.report.page import image, note
from pipelines.report.pictures import embed_array, to_image
from pipelines.report.run_view import RunView, spread
from stage2_codegen.image_generator import ImageGenerator

type Array = NDArray[np.float64]

SAMPLES = 128
_BATCH, _BINS, _POOLED = 16, 32, 4
_NOISE_SEED = 0  # of what generators draw besides z
_ROWS, _STEPS, _SIDE, _STRIP_BYTES = 4, 8, 160, 800_000


def latents(run: RunView) -> str:
    """Raises `Missing` without weights or the store."""
    pipe, store = run.generator, run.store
    stored = torch.from_numpy(store.read(spread(len(store), SAMPLES)))
    generated = generate_latents(pipe, pipe.noise(range(SAMPLES)))
    channels = "".join(
        _histogram(f"Channel {number}", stored[:, number].numpy(), generated[:, number].numpy())
        for number in range(stored.shape[1])
    )
    legend = (
        '<p class="note"><span class="swatch stored"><b>stored</b></span> &ensp; '
        f'<span class="swatch generated"><b>generated</b></span> &ensp; {len(stored)} latents each; the share of the '
        "area that the two histograms have in common stands beside each channel</p>"
    )
    plane = project(_pooled(stored), _pooled(generated))
    return f'{legend}<div class="channels">{channels}</div>{_scatter(plane)}'


def generate_latents(pipe: ImageGenerator, z: Tensor) -> Tensor:
    """z (n, z_dim) -> raw latents (n, C, H, W) on the CPU, the same for the same z."""
    with torch.inference_mode(), torch.random.fork_rng([z.device] if z.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(_NOISE_SEED, IMAGE_NOISE))
        return torch.cat([pipe.scale.to_latents(pipe.generator(part)).float().cpu() for part in z.split(_BATCH)])


def _histogram(title: str, stored: NDArray[np.float32], generated: NDArray[np.float32]) -> str:
    """Of all values of a channel; the few beyond the outer 0.1 % of the stored ones count in the last bins."""
    low, high = (float(value) for value in np.quantile(stored, (0.001, 0.999)))
    margin = 0.15 * (high - low) or 0.1
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    shares = [_shares(values, edges) for values in (stored, generated)]
    top = max(share.max() for share in shares)
    outlines = [
        " ".join(f"{x * 120 / _BINS:.1f},{56 - 52 * y / top:.1f}" for x, y in _steps(share)) for share in shares
    ]
    common = f"{np.minimum(*shares).sum():.0%}"
    return (
        f'<figure><svg viewBox="0 0 120 60" role="img" aria-label="{title}: stored and generated share {common}">'
        f'<polygon class="stored" points="0,56 {outlines[0]} 120,56"/>'
        f'<polyline class="generated" points="{outlines[1]}"/><line class="axis" x1="0" x2="120" y1="56.5" y2="56.5"/>'
        f"</svg><figcaption><span>{title}</span><b>{common}</b></figcaption></figure>"
    )


def _shares(values: NDArray[np.float32], edges: Array) -> Array:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    shares: Array = counts / values.size
    return shares


def _steps(shares: Array) -> list[tuple[float, float]]:
    """The outline of bars one wide."""
    return [(bar + end, float(share)) for bar, share in enumerate(shares) for end in (0, 1)]


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


def _scatter(plane: Plane) -> str:
    both = np.concatenate([plane.stored, plane.generated])
    low, high = both.min(0), both.max(0)
    scale = 320 / max(float((high - low).max()), 1e-9)  # the same along both axes
    width, height = ((high - low) * scale + 20).round()

    def dots(points: Array, kind: str) -> str:
        places = np.column_stack([(points[:, 0] - low[0]) * scale + 10, (high[1] - points[:, 1]) * scale + 10])
        return "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places)

    spoken = escape(f"Principal axes of {len(plane.stored)} stored and {len(plane.generated)} generated latents")
    svg = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{spoken}">'
        f"{dots(plane.stored, 'stored')}{dots(plane.generated, 'generated')}</svg>"
    )
    told = (
        f"The first two principal axes of the stored latents ({plane.explained[0]:.0%} and {plane.explained[1]:.0%} of "
        "their variance). Where generated ones leave gaps, something of the data is not drawn."
    )
    return f'<figure class="scatter">{svg}</figure>{note(told)}'


def interpolation(run: RunView) -> str:
    """Pictures on the way from one seed to the next; raises `Missing` without weights."""
    pipe = run.generator
    z = pipe.noise(range(2 * _ROWS))
    pairs = [(z[[row]], z[[row + 1]]) for row in range(0, len(z), 2)]
    pictures = [
        _fitted(picture)
        for start, stop in pairs
        for picture in pipe.between([(start, stop, share) for share in np.linspace(0, 1, _STEPS)], seed=0)
    ]
    strip = embed_array(image_grid(pictures, columns=_STEPS), _STRIP_BYTES)
    ends = ", ".join(f"{seed} to {seed + 1}" for seed in range(0, 2 * _ROWS, 2))
    told = f"Each row goes from one seed to another on the sphere of the noise: {ends}. A good generator has no jumps."
    return image(strip, f"Interpolations between seeds {ends}", ' class="wide"') + note(told)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W), no larger than a strip shows it."""
    image = to_image(picture)
    return to_array(fit(image, min(_SIDE, image.width)))
