"""Seconds to draw pictures, by the generators whose inference time LRM GAN compares (its table 1).

    uv run python -m benchmarks.drawing [--pictures 100] [--batch 10] [--rounds 3] [--side 256]

The generators have random weights, which do not change their time, and draw pixels in fp32, as in the table. PGGAN,
its third row, is not among the variants.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.machine import describe, interleaved
from stage2_codegen.variants import build_networks
from stage2_codegen.variants.contract import CodeGenerator

PUBLISHED = {"lrm": 0.83, "sagan": 1.89}  # seconds for 100 pictures of 256 px, one Quadro RTX 6000


def make(variant: str, side: int, device: str) -> CodeGenerator:
    torch.manual_seed(0)
    generator, _ = build_networks(variant, (3, side, side))
    return generator.eval().to(device).to(memory_format=torch.channels_last)


def drawing(generator: CodeGenerator, pictures: int, batch: int, device: str) -> Callable[[], None]:
    """What draws that many pictures, in batches."""

    def draw() -> None:
        with torch.inference_mode():
            for first in range(0, pictures, batch):
                generator(generator.random_z(min(batch, pictures - first), torch.device(device)))

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generators = {variant: make(variant, options.side, device) for variant in PUBLISHED}
    print(f"{describe()}; fp32, {options.pictures} pictures of {options.side} px, batch {options.batch}, ", end="")
    print(f"median of {options.rounds} interleaved rounds\n")
    print("| generator | parameters, M | seconds here | published, RTX 6000 |\n|---|---|---|---|", flush=True)
    actions = {name: drawing(G, options.pictures, options.batch, device) for name, G in generators.items()}
    for name, seconds in interleaved(actions, options.rounds).items():
        parameters = sum(parameter.numel() for parameter in generators[name].parameters()) / 1e6
        published = f"{PUBLISHED[name]:.2f}" if (options.pictures, options.side) == (100, 256) else "-"
        print(f"| {name} | {parameters:.2f} | {seconds:.2f} | {published} |")


if __name__ == "__main__":
    main()
