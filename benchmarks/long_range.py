"""The long-range module against its formula with N x N matrices: time, and the memory it needs on a large map.

    uv run python -m benchmarks.long_range [--sizes 32 64] [--channels 64] [--rounds 3] [--memory-size 128]

Forward and backward of the spatial module, batch 1, fp32. Memory is the peak of a fresh process on the CPU above what
was resident before, so parameters, maps and gradients count too.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor

from benchmarks.machine import describe, interleaved
from stage2_codegen.configs.choices import Relation
from stage2_codegen.modules import SpatialLongRange

RELATIONS: tuple[Relation, ...] = ("matmul", "pairwise")


def naive(module: SpatialLongRange, h: Tensor) -> Tensor:
    """Section 3.2 of the paper as it stands: alpha, w' and w_n are formed."""
    alpha = (module.query(h).flatten(2).mT @ module.key(h).flatten(2)).softmax(-1)
    repeated = module.weight[:, None].repeat(1, len(module.weight))
    scaled = alpha.mT @ repeated if module.relation == "matmul" else alpha.mT * repeated
    return (h.flatten(2) @ scaled).unflatten(2, h.shape[2:])


def make(size: int, channels: int, relation: Relation, device: str) -> tuple[SpatialLongRange, Tensor]:
    torch.manual_seed(0)
    module = SpatialLongRange(channels, size, relation).to(device)
    return module, torch.randn(1, channels, size, size, device=device, requires_grad=True)


def step(forward: Callable[[Tensor], Tensor], h: Tensor) -> None:
    forward(h).square().mean().backward()


def print_times(sizes: list[int], channels: int, rounds: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("| map | relation | naive, s | module, s | ratio |\n|---|---|---|---|---|")
    for size in sizes:
        for relation in RELATIONS:
            module, h = make(size, channels, relation, device)
            forms = {"naive": partial(step, partial(naive, module), h), "module": partial(step, module, h)}
            times = interleaved(forms, rounds)
            cells = f"{times['naive']:.4f} | {times['module']:.4f} | {times['naive'] / times['module']:.1f}"
            print(f"| {size} x {size} | {relation} | {cells} |", flush=True)


def peak_growth_mb(size: int, channels: int, relation: Relation) -> float:
    """Of this process, which should be fresh: a heap that has grown before hides what is taken from it again.

    Read from Linux's own high-water mark, reset before; `ru_maxrss` also holds the peak of the process that started us.
    """
    step(*make(8, channels, relation, "cpu"))  # libraries and threads are loaded at the first use
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    step(*make(size, channels, relation, "cpu"))
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return (int(peak) * 1024 - before) / 1e6


def print_memory(size: int, channels: int) -> None:
    print("\n| map | relation | peak growth, MB | one N x N matrix, MB |\n|---|---|---|---|")
    for relation in RELATIONS:
        call = f"from benchmarks.long_range import *; print(peak_growth_mb({size}, {channels}, {relation!r}))"
        grown = subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True).stdout
        print(f"| {size} x {size} | {relation} | {float(grown):.0f} | {size**4 * 4 / 1e6:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-size", type=int, default=128)
    options = parser.parse_args()
    print(f"{describe()}; {options.channels} channels, batch 1, fp32, median of {options.rounds} interleaved rounds\n")
    print_times(options.sizes, options.channels, options.rounds)
    print_memory(options.memory_size, options.channels)


if __name__ == "__main__":
    main()
