"""What the linear path beside the autoencoder's convolutions gains early in training.

    uv run python -m benchmarks.linear_path DATA [--steps 160] [--width 32]

The same networks, crops and optimiser; in the second run both linear maps are zero and stay so. L1 loss only.
"""

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.machine import describe
from data.images import open_images, to_float
from stage1_autoencoder.crops import RandomCrops
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.loop import fast_precision
from stage1_autoencoder.networks import Autoencoder

BATCH = 16


def final_error(crops: RandomCrops, unseen: torch.Tensor, steps: int, width: int, linear_path: bool) -> float:
    torch.manual_seed(0)
    autoencoder = Autoencoder(width=width).to(memory_format=torch.channels_last)
    if not linear_path:
        for path in ("encoder.patch", "decoder.patch"):
            torch.nn.init.zeros_(autoencoder.get_parameter(f"{path}.weight")).requires_grad_(False)
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
    for name, linear_path in (("with the linear path", True), ("convolutions alone", False)):
        error = final_error(crops, unseen, options.steps, options.width, linear_path)
        print(f"| {name} | {error:.2e} | {psnr(error):.1f} |")


if __name__ == "__main__":
    main()
