"""What each number format of a latent store costs: bytes, and accuracy of the latents and of the decoded pictures.

    uv run python -m benchmarks.store_precision --data DATA [--autoencoder RUN] --out FOLDER [--size 256]

The same pictures are encoded three times; float32 is what the others are compared with.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from data.images import open_images, to_float
from data.latents import LatentStore
from stage1_autoencoder.default import DEFAULT
from stage1_autoencoder.networks import Autoencoder, is_built_in

DTYPES = ("float32", "float16", "int8")
PEAK_TO_PEAK = 2.0  # latents and pictures lie in [-1, 1]


def psnr(difference: NDArray[np.float64]) -> float:
    error = np.square(difference).mean()
    return 10 * math.log10(PEAK_TO_PEAK**2 / error) if error else math.inf


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, default=Path(DEFAULT))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--decode", type=int, default=36, help="pictures to decode")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = options.autoencoder if is_built_in(options.autoencoder) else options.autoencoder.resolve()
    stores = {}
    for dtype in DTYPES:
        path = options.out.resolve() / dtype
        command = f"encode --data {options.data.resolve()} --autoencoder {run}"
        run_verb(options.out, dtype, f"{command} --out {path} --size {options.size} --dtype {dtype}")
        stores[dtype] = LatentStore.open(path)
    exact = stores["float32"]
    autoencoder = Autoencoder.load(options.autoencoder)
    rows = np.unique(np.linspace(0, len(exact) - 1, options.decode).astype(int))
    images = open_images(options.data, options.size)
    originals = to_float(torch.from_numpy(np.stack([images.image(int(row)) for row in rows]))).numpy().astype(float)

    def decoded(store: LatentStore) -> NDArray[np.float64]:
        pictures = [autoencoder.decode(torch.from_numpy(store.read([row])))[0].numpy() for row in rows]
        return np.stack(pictures).astype(np.float64)

    everything = np.arange(len(exact))
    reference, reference_pictures = exact.read(everything).astype(np.float64), decoded(exact)
    print(f"{describe()}; {len(exact)} photographs at {options.size} px, {len(rows)} of them decoded\n")
    print(
        "| | bytes a picture | latents, PSNR dB | decoded against float32, PSNR dB | against the photographs, PSNR dB |"
    )
    print("|---|---|---|---|---|")
    for dtype, store in stores.items():
        size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file()) / len(store)
        latents = psnr(store.read(everything) - reference)
        pictures = decoded(store)
        row = f"| {dtype} | {size:.0f} | {latents:.1f} | {psnr(pictures - reference_pictures):.1f} |"
        print(f"{row} {psnr(pictures - originals):.2f} |")


if __name__ == "__main__":
    main()
