"""The training step of `accel` on pixels against codes: what the acceleration framework gains (its table 3).

    uv run python -m benchmarks.pixels_against_codes [--batch 8] [--rounds 3] [--sides 256 512]

The same network family, batch and loss; only the shape differs: (3, side, side) against (16, side/4, side/4).
"""

import argparse

import torch
from torch import Tensor

from benchmarks.machine import describe, interleaved
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import CodeShape

PUBLISHED = {256: 30 / 8, 512: 56 / 22, 1024: 225 / 45}  # minutes an epoch before / after, one P100


class Step:
    """One critic and one generator update."""

    def __init__(self, shape: CodeShape, batch: int) -> None:
        variant = VARIANTS["accel"]
        config = variant.Config()
        self.G, self.critic = variant.Generator(shape, config), variant.Critic(shape, config)
        for network in (self.G, self.critic):
            network.to("cuda" if torch.cuda.is_available() else "cpu").to(memory_format=torch.channels_last)
        self.loss, self.batch, self.shape = variant.loss(config), batch, shape
        self.optimizers = [
            torch.optim.Adam(n.parameters(), 2e-4, (0.0, 0.9), fused=True) for n in (self.G, self.critic)
        ]

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, device=next(self.G.parameters()).device)

    def __call__(self) -> None:
        self.critic.requires_grad_(True)
        with torch.no_grad():
            fake = self.G(self._noise(512))
        loss, _ = self.loss.critic_loss(self.critic, self._noise(*self.shape).clamp(-1, 1), fake)
        loss.backward()
        self.optimizers[1].step()
        self.optimizers[1].zero_grad()
        self.critic.requires_grad_(False)
        loss, _ = self.loss.generator_loss(self.critic, fake, self.G(self._noise(512)))
        loss.backward()
        self.optimizers[0].step()
        self.optimizers[0].zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=int, nargs="+", default=[256])
    options = parser.parse_args()
    print(f"{describe()}; fp32, batch {options.batch}, median of {options.rounds} interleaved steps\n")
    print("| image side | pixels, s/step | codes, s/step | ratio | published ratio |\n|---|---|---|---|---|")
    for side in options.sides:
        shapes: dict[str, CodeShape] = {"pixels": (3, side, side), "codes": (16, side // 4, side // 4)}
        times = interleaved({name: Step(shape, options.batch) for name, shape in shapes.items()}, options.rounds)
        ratio = times["pixels"] / times["codes"]
        print(f"| {side} | {times['pixels']:.2f} | {times['codes']:.2f} | {ratio:.2f} | {PUBLISHED.get(side, 0):.2f} |")


if __name__ == "__main__":
    main()
