"""The training step at every size of the codes: images/s, share of the convolution peak, memory, hours to 1M codes.

    uv run python -m benchmarks.sizes [--sizes 64 128 256] [--batches 8 4 1] [--precision bf16] [--rounds 3] [--compile]

On a GPU give the batches that fill it. Codes of side S stand for images of side 4 S. A step has one critic and one
generator update. The peak of memory is that of tensors on a GPU, of the whole process on a CPU.
"""

import argparse

import torch

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step, convolution_peak, flops
from stage1_autoencoder.training.clock import peak_memory_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="accel")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 4, 1], help="one for each size")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    bf16 = options.precision == "bf16"
    peak = convolution_peak(options.batches[0], bf16)
    print(f"{describe()}; {options.variant}, {options.precision}, convolution peak {peak / 1e12:.2f} TFLOP/s", end="")
    print(f"{', compiled' if options.compile else ''}, median of {options.rounds} steps\n")
    print("| codes | images | batch | s a step | samples/s | of peak | peak memory, MB | hours to 1M samples |")
    print("|---|---|---|---|---|---|---|---|")
    for size, batch in zip(options.sizes, options.batches, strict=True):
        work = flops(Step(options.variant, (16, size, size), 1, bf16)) * batch
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        step = Step(options.variant, (16, size, size), batch, bf16, {"compiled": options.compile})
        seconds = interleaved({"step": step}, options.rounds)["step"]
        speed = batch / seconds
        cells = [f"{size} x {size}", f"{4 * size} px", batch, f"{seconds:.3g}", f"{speed:.3g}"]
        cells += [f"{work / seconds / peak:.0%}", f"{peak_memory_mb(step.device):.0f}", f"{1e6 / speed / 3600:.3g}"]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        del step


if __name__ == "__main__":
    main()
