"""What `benchmarks.default_autoencoder measure` prints: one function a table, each on images never trained on."""

import importlib.util
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import describe, interleaved
from data.images import ImageSet, fit, open_images, to_array, to_float
from stage1_autoencoder.evaluate import PAPER_MSE, psnr
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.config import Precision

NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
SAMPLE = 48  # images of 256 px for what needs no more
DEAD = 0.02  # a channel of less deviation than this carries nothing a critic could use


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each pair in [-1, 1], (N, 3, H, W) -> (N,).

    Gaussian window of deviation 1.5 over 11 x 11 pixels, at the places where it fits; mean over places and channels.
    """
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).to(images)
    kernel = (window[:, None] * window).expand(3, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, groups=3)

    mean, other = blur(images), blur(others)
    variance, other_variance = blur(images**2) - mean**2, blur(others**2) - other**2
    covariance = blur(images * others) - mean * other
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity = (2 * mean * other + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean**2 + other**2 + c1) * (variance + other_variance + c2))
    return similarity.mean(dim=(1, 2, 3))


def load(images: ImageSet, size: int, limit: int | None = None) -> Iterator[Tensor]:
    """Those at least this large, fitted to it, (1, 3, size, size) in [-1, 1]."""
    for index in [i for i in range(len(images)) if min(images.sizes[i]) >= size][:limit]:
        yield to_float(torch.from_numpy(to_array(fit(images.pil(index), size))))[None]


def table(header: str, rows: Sequence[Sequence[object]]) -> None:
    columns = header.split(" | ")
    print(f"\n| {header} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def mse(images: Tensor, others: Tensor) -> float:
    return (images - others).square().mean().item()


def reconstruction(autoencoder: Autoencoder, sources: Mapping[str, ImageSet]) -> None:
    rows: list[list[Any]] = []
    for source, images in sources.items():
        for size, paper in PAPER_MSE.items():
            errors, similarities = [], []
            for pixels in load(images, size):
                rebuilt = autoencoder(pixels)
                errors.append(mse(rebuilt, pixels))
                similarities.append(ssim(rebuilt.clamp(-1, 1), pixels).item())
            if errors:
                error = float(np.mean(errors))
                numbers = [f"{error:.2e}", f"{psnr(error):.2f}", f"{np.mean(similarities):.4f}"]
                rows.append([source, size, len(errors), *numbers, f"{paper:.1e}", f"{error / paper:.2f}"])
    table("source | size | images | MSE in [-1, 1] | PSNR dB | SSIM | the paper's MSE, faces | ratio", rows)
    for source in sources:
        errors = [float(row[3]) for row in rows if row[0] == source]
        falls = all(larger < smaller for smaller, larger in itertools.pairwise(errors))
        reached = [str(row[1]) for row in rows if row[0] == source and row[1] >= 256 and float(row[-1]) <= 0.5]
        print(f"{source}: error {'falls' if falls else 'does not always fall'} with the size; ", end="")
        print(f"half the paper's error or less at {', '.join(reached) or 'no size from 256 px on'}")


def tolerance(autoencoders: Mapping[str, Autoencoder], images: ImageSet) -> None:
    pixels = torch.cat(list(load(images, 256, SAMPLE)))
    noise = torch.randn(len(pixels), 16, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, autoencoder in autoencoders.items():
        codes = autoencoder.encode(pixels)
        rows.append([name, *(f"{psnr(mse(autoencoder.decode(codes + s * noise), pixels)):.2f}" for s in NOISES)])
    table(f"PSNR dB by deviation of noise on the codes | {' | '.join(map(str, NOISES))}", rows)


def codes_of(autoencoder: Autoencoder, images: ImageSet) -> None:
    codes = torch.cat([autoencoder.encode(pixels) for pixels in load(images, 256, SAMPLE)])
    means, deviations = codes.mean(dim=(0, 2, 3)), codes.std(dim=(0, 2, 3))
    saturated = (codes.abs() > 0.99).float().mean(dim=(0, 2, 3))
    rows = [
        [channel, *(f"{value:.3f}" for value in values[:2]), f"{values[2]:.2%}"]
        for channel, values in enumerate(torch.stack([means, deviations, saturated], dim=1).tolist())
    ]
    table("channel | mean | deviation | beyond 0.99", rows)
    print(f"\nbeyond 0.99 in all: {saturated.mean():.2%}; dead channels: {int((deviations < DEAD).sum())}")


def mirrors(autoencoder: Autoencoder, images: ImageSet) -> None:
    pixels = torch.cat(list(load(images, 256, SAMPLE)))
    mirrored = pixels.flip(-1)
    codes, codes_of_mirrored = autoencoder.encode(pixels), autoencoder.encode(mirrored)
    rows = []
    for name, given in {
        "codes mirrored": codes.flip(-1),
        "and each channel with its sign": autoencoder.mirror(codes),
        "codes of the mirrored images": codes_of_mirrored,
    }.items():
        agreement = "-" if given is codes_of_mirrored else f"{psnr(mse(given, codes_of_mirrored)):.2f}"
        rows.append([name, agreement, f"{psnr(mse(autoencoder.decode(given), mirrored)):.2f}"])
    table(
        "mirroring | against codes of the mirrored images, PSNR dB | decoded, against the mirrored images, PSNR dB",
        rows,
    )


def kinds(autoencoder: Autoencoder, photos: ImageSet) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for index in range(len(photos)):
            photo = fit(photos.pil(index), 256)
            save(photo, folder / "photographs", index)
            save(photo.convert("L"), folder / "grey photographs", index)
            save(_sixteen_bit(photos.pil(index)), folder / "16-bit grey photographs", index)
            save(_night(photo, index), folder / "the same at night, with sensor noise", index)
            save(_line_art(index), folder / "line art", index)
            save(_text(index), folder / "text", index)
        rows = []
        for kind in sorted(folder.iterdir()):
            pixels = torch.cat(list(load(open_images(kind), 256)))
            rebuilt = autoencoder(pixels)
            error = mse(rebuilt, pixels)
            similarity = ssim(rebuilt.clamp(-1, 1), pixels).mean()
            rows.append([kind.name, len(pixels), f"{error:.2e}", f"{psnr(error):.2f}", f"{similarity:.4f}"])
    table("kind, 256 px | images | MSE | PSNR dB | SSIM", rows)
    print("\nfaces: none in the data, neither to train on nor to measure")


def save(image: Image.Image, folder: Path, index: int) -> None:
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{index:03d}.png")


def _sixteen_bit(photo: Image.Image) -> Image.Image:
    """Shrunk in floating point, so that the 16 bits are there."""
    grey = fit(photo.convert("F"), 256)
    return Image.fromarray((np.asarray(grey).clip(0, 255) * 257).round().astype(np.uint16))


def _night(photo: Image.Image, seed: int) -> Image.Image:
    dark = np.asarray(photo) * 0.12 + np.random.default_rng(seed).normal(0, 3, (256, 256, 3))
    return Image.fromarray(dark.round().clip(0, 255).astype(np.uint8))


def _line_art(seed: int) -> Image.Image:
    image, random = Image.new("RGB", (1024, 1024), "white"), np.random.default_rng(seed)
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        x0, x1, y0, y1 = (int(v) for v in np.sort(random.integers(0, 1024, (2, 2)), axis=1).ravel())
        draw.ellipse((x0, y0, x1, y1), outline="black", width=int(random.integers(4, 12)))
        draw.line((x0, y1, x1, y0), fill="black", width=int(random.integers(4, 12)))
    return image.resize((256, 256), Image.Resampling.LANCZOS)


def _text(seed: int) -> Image.Image:
    image, random = Image.new("RGB", (256, 256), "white"), np.random.default_rng(seed)
    draw, letters = ImageDraw.Draw(image), "abcdefghijklmnopqrstuvwxyz     "
    for line in range(14):
        words = "".join(letters[i] for i in random.integers(0, len(letters), 40))
        draw.text((8, 8 + 17 * line), words, fill="black", font=ImageFont.load_default(13))
    return image


def encode_cost(autoencoder: Autoencoder, rounds: int = 3) -> None:
    """Images a second of both encoders, taken in turn."""
    if importlib.util.find_spec("diffusers") is None:
        print("\nencode cost: left out, it needs `uv sync --group benchmarks`")
        return
    from diffusers import AutoencoderTiny

    encoders = {"default": autoencoder.encoder, "TAESD's architecture": AutoencoderTiny().encoder.eval()}
    rows = []
    for size, batch in ((256, 8), (512, 4), (1024, 1)):
        pixels = (torch.rand(batch, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
        for precision in ("fp32", "bf16"):
            actions = {
                name: partial(_encode, encoder.to(memory_format=torch.channels_last), pixels, precision)
                for name, encoder in encoders.items()
            }
            speeds = {name: batch / seconds for name, seconds in interleaved(actions, rounds).items()}
            rows.append([size, batch, precision, *(f"{speed:.2f}" for speed in speeds.values())])
    print(f"\n{describe()}; {torch.get_num_threads()} threads")
    table(f"size | batch | precision | {' | '.join(f'{name}, images/s' for name in encoders)}", rows)


def _encode(encoder: nn.Module, pixels: Tensor, precision: Precision) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        encoder(pixels)
