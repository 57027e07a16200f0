"""A generator from one hundred pictures, and whether it memorises them: the part of docs/race.md on few pictures.

    uv run python -m benchmarks.few_shot --data FOLDER --out FOLDER [--size 128] [--minutes 60] [--threads 1]

FOLDER of the data holds flowers256.tar and, below weights/, torchvision's squeezenet1_0 as squeezenet*.pth. The
pictures are the first hundred roses of the archive. It prints a table, and writes samples.png, of the first seeds, and
a sheet of samples beside the pictures nearest to them; the same command goes on after a stop.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from benchmarks.race import find_pictures, find_weights
from benchmarks.race_entrants import Pictures, Terms, check, codegan, race
from data.images import image_grid, open_images, save_png

COUNT = 100
ROSES = 2  # the label in the archive
SHOWN = 32


def write_roses(data: Path, folder: Path, size: int) -> None:
    images = open_images(find_pictures(data, "flowers128").data, size)
    folder.mkdir(parents=True, exist_ok=True)
    for index in np.flatnonzero(np.asarray(images.labels) == ROSES)[:COUNT]:
        if not (file := folder / f"{index:06d}.png").exists():
            save_png(file, images.image(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    weights, out = find_weights(options.data), options.out.resolve()
    write_roses(options.data, out / "pictures", options.size)
    pictures = Pictures(str(out / "pictures"), options.size)
    looks = race("projected", Terms(pictures, options.minutes, options.threads), out / "projected")

    print(f"{describe()}; {COUNT} roses at {options.size} px, {options.threads} thread(s)\n")
    print("| minutes | samples seen | fd-squeezenet | kd-squeezenet | precision | recall |\n" + "|---" * 6 + "|")
    for look in looks:
        target = out / "scores" / str(look.number) / "scores.json"
        if not target.exists():
            command = f"score --images {look.samples(out / 'projected')} --data {pictures.data} --size {options.size}"
            command += f" --num {10 * COUNT} --features squeezenet --feature-weights {weights} --out {target}"
            check(subprocess.run(codegan(f"{command} --metrics kid fid precision-recall"), stdout=sys.stderr))
        scores = json.loads(target.read_text())
        names = ("fd-squeezenet", "kd-squeezenet", "precision-squeezenet", "recall-squeezenet")
        cells = [f"{look.seconds / 60:.1f}", f"{look.nimg:,}", *(f"{scores[name]['value']:.3g}" for name in names)]
        print(f"| {' | '.join(cells)} |")
    samples = open_images(looks[-1].samples(out / "projected"), options.size)
    save_png(out / "samples.png", image_grid([samples.image(index) for index in range(SHOWN)], columns=8))
    print(f"\nwrote {out / 'samples.png'}\nnearest pictures: {target.with_name('neighbours.png')}")


if __name__ == "__main__":
    main()
