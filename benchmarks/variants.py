"""The training step of every variant: seconds, and the share of this machine's convolution peak that it reaches.

    uv run python -m benchmarks.variants [--shape 16 64 64] [--batch 8] [--rounds 3] [--variants accel r3]

The peak is the best 3 x 3 convolution, forward and backward, of the sizes that the variants use, in the same run.
"""

import argparse

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step, convolution_peak, flops
from stage2_codegen.variants import VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(16, 64, 64))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    options = parser.parse_args()
    shape, batch = tuple(options.shape), options.batch
    peak = {bf16: convolution_peak(batch, bf16) for bf16 in (False, True)}
    print(f"{describe()}; codes {' x '.join(map(str, shape))}, batch {batch}, median of {options.rounds} steps")
    print(f"convolution peak {peak[False] / 1e9:.0f} GFLOP/s fp32, {peak[True] / 1e9:.0f} GFLOP/s bf16\n")
    print(
        "| variant | GFLOP a step | fp32, s | of peak | bf16, s | of peak | bf16 gains |\n|---|---|---|---|---|---|---|"
    )
    for name in options.variants:
        steps = {str(bf16): Step(name, shape, batch, bf16) for bf16 in (False, True)}
        work = flops(steps["False"])
        times = interleaved(steps, options.rounds)
        cells = [f"{times[str(b)]:.2f} | {work / times[str(b)] / peak[b]:.0%}" for b in (False, True)]
        print(
            f"| {name} | {work / 1e9:.0f} | {' | '.join(cells)} | {times['False'] / times['True']:.2f}x |", flush=True
        )


if __name__ == "__main__":
    main()
