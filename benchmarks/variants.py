"""The training step of every variant: seconds, and the share of this machine's convolution peak that it reaches.

    uv run python -m benchmarks.variants [--shape 16 64 64] [--batch 8] [--rounds 3] [--variants accel r3]
        [--precisions fp32 bf16]

The peak is the best 3 x 3 convolution, forward and backward, of the sizes that the variants use, in the same run.
"""

import argparse

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step, convolution_peak, flops
from stage1_autoencoder.training.precision import fast_precision
from stage2_codegen.variants import VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(16, 64, 64))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=sorted({"fp32", fast_precision()}))
    options = parser.parse_args()
    shape, batch, precisions = tuple(options.shape), options.batch, options.precisions
    peak = {precision: convolution_peak(batch, precision == "bf16") for precision in precisions}
    peaks = ", ".join(f"{peak[precision] / 1e9:.0f} GFLOP/s {precision}" for precision in precisions)
    print(f"{describe()}; codes {' x '.join(map(str, shape))}, batch {batch}, median of {options.rounds} steps")
    print(f"convolution peak {peaks}\n")
    columns = ["variant", "GFLOP a step"]
    for precision in precisions:
        columns += [f"{precision}, s", "samples/s", "of peak"]
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    for name in options.variants:
        steps = {precision: Step(name, shape, batch, precision == "bf16") for precision in precisions}
        work = flops(steps[precisions[0]])
        cells = [name, f"{work / 1e9:.0f}"]
        for precision, seconds in interleaved(steps, options.rounds).items():
            cells += [f"{seconds:.3g}", f"{batch / seconds:.3g}", f"{work / seconds / peak[precision]:.0%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
