"""Autoencoders as published, trained alike: with and without the adversarial term, and of factors 2, 4, 8 and 16.

    uv run python -m benchmarks.autoencoders --data DATA --out FOLDER [--kimg 24] [--size 256] [--held-out 64]
        [--features inception] [--feature-weights FILE]

The acceleration framework's figure 4 and table 1 compare the factors; it has the adversarial term in all of them (eq.
3). All rows learn from the same pictures and are measured on the same others, every tenth or so of the data, fitted to
--size: by PSNR, and by the kernel distance between them and their reconstructions. FOLDER/factors.png shows some of
them, above their reconstructions row by row. What is done is not repeated.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from data.images import ImageSet, image_grid, open_images, save_png, to_array, to_float, to_uint8
from stage1_autoencoder.evaluate import reconstruction_table
from stage1_autoencoder.networks import Autoencoder

ALPHA = 0.01  # weight of the adversarial term; the paper has one and does not say which
ROWS = [(4, 0.0), (2, ALPHA), (4, ALPHA), (8, ALPHA), (16, ALPHA)]  # factor, weight
SHOWN = 8  # pictures in factors.png


def write_pictures(data: Sequence[str], out: Path, size: int, held_out: int) -> None:
    """Divide the data into the folders `train`, in its own size, and `held-out`, fitted to `size`."""
    if (out / "divided").is_file():
        return
    images = open_images(data)
    every = max(2, len(images) // held_out)
    for index in range(len(images)):
        if index % every == 0:
            save_png(out / "held-out" / f"{index:06d}.png", images.fitted(index, [size])[0])
        else:
            save_png(out / "train" / f"{index:06d}.png", to_array(images.pil(index)))
    (out / "divided").touch()


@torch.inference_mode()
def reconstruct(autoencoder: Autoencoder, images: ImageSet, folder: Path) -> None:
    for index, key in enumerate(images.keys):
        image = to_float(torch.from_numpy(images.image(index))[None].to(autoencoder.device))
        save_png(folder / f"{Path(key).stem}.png", to_uint8(autoencoder(image))[0].cpu().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kimg", type=float, default=24.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--features", default="inception")
    parser.add_argument("--feature-weights", type=Path)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    write_pictures(options.data, out, options.size, options.held_out)
    images = open_images(out / "held-out", size=options.size)
    shown = [images.image(index) for index in range(min(SHOWN, len(images)))]
    columns = len(shown)
    scoring = f"--data held-out --metrics kid --features {options.features} --num {len(images)}"
    if options.feature_weights:
        scoring += f" --feature-weights {shlex.quote(str(options.feature_weights.resolve()))}"
    print(f"{describe()}; {options.kimg:g} thousand crops, {len(images)} held-out pictures of {options.size} px\n")
    print("| factor | adversarial weight | PSNR, dB | MSE | kernel distance | minutes |\n|---|---|---|---|---|---|")
    for factor, weight in ROWS:
        slug = f"{factor}-{weight:g}"
        # The term joins after a tenth, as by default: 20 of 200 thousand crops.
        train = (
            f"train-ae --data train --out runs/{slug} --factor {factor} --kimg {options.kimg} --width {options.width}"
        )
        train += f" --adversarial-weight {weight} --warmup-kimg {options.kimg / 10}"
        taken = run_verb(out, f"train-{slug}", train)
        autoencoder = Autoencoder.load(out / "runs" / slug)
        (row,) = reconstruction_table(autoencoder, images, [options.size])
        folder = f"reconstructed/{slug}"
        reconstruct(autoencoder, images, out / folder)
        run_verb(out, f"score-{slug}", f"score --images {folder} {scoring} --out scores/{slug}.json")
        scores = json.loads((out / "scores" / f"{slug}.json").read_text())
        distance = next(entry["value"] for entry in scores.values() if isinstance(entry, dict) and "value" in entry)
        cells = [factor, weight, f"{row['psnr']:.2f}", f"{row['mse']:.3e}", f"{distance:.4g}"]
        print("|", " | ".join(map(str, [*cells, f"{taken['seconds'] / 60:.1f}"])), "|", flush=True)
        made = open_images(out / folder)
        shown += [made.image(index) for index in range(columns)]
    save_png(out / "factors.png", image_grid(shown, columns=columns))


if __name__ == "__main__":
    main()
