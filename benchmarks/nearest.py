"""How near samples come to the training images, against augmented copies of these (FastGAN, table 8).

    uv run python -m benchmarks.nearest --run RUN --data DATA [--vgg-weights FILE] [--num 100] [--trials 3]

The distance is LPIPS, or without --vgg-weights the mean absolute difference of pixels in [0, 1]. A sample's distance is
that to the nearest training image. The augmented copy of an image is mirrored or not, cropped to 0.8 of its area at a
random place, and enlarged again. As in the table, the least mean of the trials counts.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import describe
from data.images import ImageSet, open_images, to_float
from pipelines.sample import load_generator
from stage2_codegen.frozen.perceptual import MeanDistance, load_lpips

KEPT = 0.8  # of an image's area, in the crop
AT_ONCE = 32  # real images that a sample is compared with in one pass

Distance = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, H, W), twice -> their distances (N,)


def pixels(images: Tensor, others: Tensor) -> Tensor:
    return (images - others).abs().mean((1, 2, 3)) / 2


def lpips_of(weights: Path, device: torch.device) -> Distance:
    network = load_lpips(weights).network.to(device)
    assert isinstance(network, MeanDistance)
    return lambda images, others: network.lpips(images, others).flatten()


def augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """A mirrored or plain crop of (1, 3, H, W), in the same size."""
    height, width = image.shape[2:]
    rows, columns = round(math.sqrt(KEPT) * height), round(math.sqrt(KEPT) * width)
    top, left, flips = torch.rand(3, generator=generator).tolist()
    top, left = round(top * (height - rows)), round(left * (width - columns))
    crop = image[:, :, top : top + rows, left : left + columns]
    return F.interpolate(crop.flip(3) if flips < 0.5 else crop, (height, width), mode="bilinear", antialias=True)


def images_at(images: ImageSet, rows: list[int], device: torch.device) -> Tensor:
    return torch.cat([to_float(torch.from_numpy(images.image(row))[None]) for row in rows]).to(device)


def to_nearest(sample: Tensor, images: ImageSet, distance: Distance) -> float:
    """The distance of (1, 3, H, W) to the nearest image of the set."""
    least = math.inf
    for start in range(0, len(images), AT_ONCE):
        others = images_at(images, list(range(start, min(start + AT_ONCE, len(images)))), sample.device)
        least = min(least, distance(sample.expand_as(others), others).min().item())
    return least


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--vgg-weights", type=Path)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--trials", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    distance = lpips_of(options.vgg_weights, device) if options.vgg_weights else pixels
    pipe = load_generator(options.run)
    images = open_images(options.data, size=pipe.image_size)
    means: dict[str, list[float]] = {"augmented": [], "samples": []}
    for trial in range(options.trials):
        drawn = torch.Generator().manual_seed(trial)
        rows = torch.randint(len(images), (options.num,), generator=drawn).tolist()
        copies = [(image := images_at(images, [row], device), augmented(image, drawn)) for row in rows]
        means["augmented"].append(sum(distance(*pair).item() for pair in copies) / options.num)
        seeds = range(trial * options.num, (trial + 1) * options.num)
        samples = [to_float(torch.from_numpy(pipe([seed]))).to(device) for seed in seeds]
        means["samples"].append(sum(to_nearest(sample, images, distance) for sample in samples) / options.num)
    name = "LPIPS" if options.vgg_weights else "mean absolute difference"
    print(
        f"{describe()}; {options.run.name}, {len(images)} images of {pipe.image_size} px, {options.num} samples, ",
        end="",
    )
    print(f"the least of {options.trials} trials\n")
    print(f"| {name} | to | trials |\n|---|---|---|")
    for what, to in (("augmented", "the image that was augmented"), ("samples", "the nearest training image")):
        print(f"| {what}: {min(means[what]):.4f} | {to} | {', '.join(f'{mean:.4f}' for mean in means[what])} |")


if __name__ == "__main__":
    main()
