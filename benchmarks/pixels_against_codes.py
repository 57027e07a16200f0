"""The training step of `accel` on pixels against codes: what the acceleration framework gains (its table 3).

    uv run python -m benchmarks.pixels_against_codes [--batch 8] [--rounds 3] [--sides 256 512]

The same network family, batch and loss; only the shape differs: (3, side, side) against (16, side/4, side/4).
"""

import argparse

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step
from stage2_codegen.variants.contract import CodeShape

PUBLISHED = {256: 30 / 8, 512: 56 / 22, 1024: 225 / 45}  # minutes an epoch before / after, one P100


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
        times = interleaved(
            {name: Step("accel", shape, options.batch) for name, shape in shapes.items()}, options.rounds
        )
        ratio = times["pixels"] / times["codes"]
        print(f"| {side} | {times['pixels']:.2f} | {times['codes']:.2f} | {ratio:.2f} | {PUBLISHED.get(side, 0):.2f} |")


if __name__ == "__main__":
    main()
