"""What the linear path beside the autoencoder's convolutions gains early in training.

    uv run python -m benchmarks.linear_path DATA [--steps 160] [--width 32]

The same networks, crops and optimiser. In the second run the channels of the latents are not balanced; in the third
both linear maps are zero and stay so, and the last convolutions start at random instead of at zero. L1 loss only.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.machine import describe
from data.images import open_images, to_float
from stage1_autoencoder.crops import RandomCrops
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.step import BALANCED_ON
from stage1_autoencoder.training.precision import fast_precision

BATCH = 16

type Start = Callable[[Autoencoder, RandomCrops], None]


def balanced(autoencoder: Autoencoder, crops: RandomCrops) -> None:
    autoencoder.balance(to_float(torch.from_numpy(crops.batch(0, BALANCED_ON))))


def as_it_is(autoencoder: Autoencoder, crops: RandomCrops) -> None:
    pass


def convolutions_alone(autoencoder: Autoencoder, crops: RandomCrops) -> None:
    weights = dict(autoencoder.named_parameters())
    for path in ("encoder.patch", "decoder.patch"):
        torch.nn.init.zeros_(weights[f"{path}.weight"]).requires_grad_(False)
    for last in ("encoder.layers.8", "decoder.layers.7"):
        weight = weights[f"{last}.weight"]
        torch.nn.init.normal_(weight, std=0.1 / weight[0].numel() ** 0.5)


STARTS = {
    "with the linear path": balanced,
    "with the linear path, channels not balanced": as_it_is,
    "convolutions alone": convolutions_alone,
}


def final_error(crops: RandomCrops, unseen: torch.Tensor, steps: int, width: int, start: Start) -> float:
    torch.manual_seed(0)
    autoencoder = Autoencoder(width=width).to(memory_format=torch.channels_last)
    start(autoencoder, crops)
    trained = [parameter for parameter in autoencoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, 5e-4, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=100)
    for step in range(steps):
        images = to_float(torch.from_numpy(crops.batch(step * BATCH, BATCH))).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == "bf16"):
            loss = F.l1_loss(autoencoder(images).float(), images)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.inference_mode():
        return (autoencoder(unseen) - unseen).square().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    images = open_images(options.data)
    held_out = max(1, len(images) // 10)
    order = np.random.default_rng(0).permutation(len(images))
    crops = RandomCrops(images, order[held_out:], 128, seed=0)
    unseen = to_float(torch.from_numpy(RandomCrops(images, order[:held_out], 128, seed=0).batch(0, 32)))
    print(f"{describe()}; factor 4, width {options.width}, {options.steps} steps of {BATCH} crops at 128 px\n")
    print("| | MSE in [-1, 1] on unseen crops | PSNR dB |\n|---|---|---|")
    for name, start in STARTS.items():
        error = final_error(crops, unseen, options.steps, options.width, start)
        print(f"| {name} | {error:.2e} | {psnr(error):.1f} |")


if __name__ == "__main__":
    main()
