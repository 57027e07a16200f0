"""How near a linear approximation comes to the decoder, and how much of a grid of patches each leaves in pictures.

    uv run python -m benchmarks.linear_decoder --store FOLDER

The approximation is fitted to some of the store's latents, as it is when a training starts; the table is of others.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.machine import describe
from data.latents import LatentStore
from stage1_autoencoder.bounds import unbounded
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder, Decoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.frozen.linear_decoder import LinearDecoder
from stage2_codegen.health import unevenness

COUNT = 128  # pictures of the table


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    options = parser.parse_args()
    store = LatentStore.open(options.store)
    autoencoder = Autoencoder.of_store(store).requires_grad_(False)
    scale = CodeScale.of(store, standardise=False)
    approximation = LinearDecoder(autoencoder, scale.to_latents(scale.examples(store)))
    rows = [len(store) * (2 * row + 1) // (2 * COUNT) for row in range(COUNT)]
    latents = torch.from_numpy(store.read(rows))
    assert isinstance(autoencoder.decoder, Decoder)
    decoded = autoencoder.decode(latents)
    pictures = {
        "a map of 3 x 3 latents": approximation(latents),
        "the decoder's own linear path": torch.tanh(autoencoder.decoder.patch(unbounded(latents))),
    }
    print(f"{describe()}; {store.path.name}, {COUNT} pictures of {store.image_size} px\n")
    print("| pictures from real codes | PSNR against the decoder, dB | `unevenness` |\n|---|---|---|")
    print(f"| the decoder | | {unevenness([decoded], autoencoder.factor):.2f} |")
    for name, made in pictures.items():
        error = (made - decoded).square().mean().item()
        print(f"| {name} | {psnr(error):.1f} | {unevenness([made], autoencoder.factor):.2f} |")


if __name__ == "__main__":
    main()
