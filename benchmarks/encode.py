"""`codegan encode`, the whole verb, against the bare encoder on the same images: what reading and storing cost.

    uv run python -m benchmarks.encode DATA [--size 256] [--count 256] [--width 64] [--rounds 3]

DATA is anything `codegan` reads. The encoder has random weights; its speed does not depend on them.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import describe, interleaved
from data.files.checkpoints import save_weights
from data.images import open_images, save_png, to_float
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.networks import Autoencoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    autoencoder = Autoencoder(width=options.width)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        described = {"kind": "autoencoder", "autoencoder": autoencoder.config}
        save_weights(folder / "ae" / "weights", {"autoencoder": autoencoder.state_dict()}, described)
        source = open_images(options.data, size=options.size)
        for index in range(min(options.count, len(source))):
            save_png(folder / "images" / f"{index}.png", source.image(index))
        images = open_images(folder / "images", size=options.size)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bare_encoder = Autoencoder.load(folder / "ae").to(device).to(memory_format=torch.channels_last)
        batches = [
            to_float(torch.from_numpy(batch)).to(device).contiguous(memory_format=torch.channels_last)
            for batch in images.batches(options.batch)
        ]
        stores = itertools.count()

        @torch.inference_mode()
        def bare() -> None:
            for batch in batches:
                bare_encoder.encode(batch)

        def whole() -> None:
            encode(
                EncodeConfig(
                    data=(str(folder / "images"),),
                    autoencoder=folder / "ae",
                    out=folder / f"store{next(stores)}",
                    size=(options.size,),
                    batch_size=options.batch,
                )
            )

        times = interleaved({"bare encoder": bare, "encode": whole}, options.rounds)
    print(
        f"{describe()}; {len(images)} PNGs at {options.size} px, batch {options.batch}, width {options.width}, fp32\n"
    )
    print("| | images/s | share of the bare encoder |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {len(images) / seconds:.1f} | {times['bare encoder'] / seconds:.0%} |")


if __name__ == "__main__":
    main()
