"""The whole pipeline on real photographs, verb by verb: the numbers of docs/flowers.md.

    uv run python -m benchmarks.flowers --data FOLDER --out FOLDER [--ae-kimg 19.2] [--kimg 8]

FOLDER of the data holds flowers256.tar, appleleaf_256.tar, photos1024.tar and, below weights/, torchvision's
squeezenet1_0 as squeezenet*.pth. Steps already done are not run again, so the same command goes on after a stop.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from stage1_autoencoder.evaluate import PAPER_MSE

CODE_GAN = "--model.width 64 --model.lr 5e-4 --model.critic-lr 5e-4 --model.ema-halflife-kimg 2 --snapshot-kimg 2"


def reconstruction_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}\n\n| size | images | MSE | PSNR dB | the paper's, on faces | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        paper = PAPER_MSE[row["size"]]
        cells = [row["size"], row["count"], f"{row['mse']:.2e}", f"{row['psnr']:.2f}", f"{paper:.1e}"]
        print("|", " | ".join(map(str, cells)), f"| {row['mse'] / paper:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ae-kimg", type=float, default=19.2)
    parser.add_argument("--kimg", type=float, default=8.0)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "data").exists():
        (out / "data").symlink_to(options.data.resolve())
    weights = next(path.name for path in (out / "data/weights").glob("squeezenet*.pth"))

    ae = f"--width 32 --discriminator-width 32 --kimg {options.ae_kimg} --warmup-kimg 16 --snapshot-kimg 8"
    encode = "--autoencoder runs/flowers-ae --size 256 --precision bf16"
    gan = f"{CODE_GAN} --kimg {options.kimg} --precision bf16"
    score = f"--num 256 --features squeezenet --feature-weights data/weights/{weights}"
    steps = {
        "autoencoder": f"train-ae --data data/flowers256.tar --out runs/flowers-ae --precision bf16 {ae}",
        "reconstruct photographs": "inspect data/photos1024.tar --autoencoder runs/flowers-ae --out inspect-photos",
        "encode leaves": f"encode --data data/appleleaf_256.tar --out stores/leaves {encode}",
        "encode flowers": f"encode --data data/flowers256.tar --out stores/flowers {encode}",
        "train on leaves": f"train accel --store stores/leaves --out runs/leaves {gan}",
        "train on flowers": f"train accel --store stores/flowers --out runs/flowers {gan}",
        "score leaves": f"score --run runs/leaves --data data/appleleaf_256.tar {score}",
        "score flowers": f"score --run runs/flowers --data data/flowers256.tar {score}",
    }
    taken = [run_verb(out, step, command) for step, command in steps.items()]

    print(f"\n{describe()}\n\n| step | minutes | peak memory, MB |\n|---|---|---|")
    for row in taken:
        print(f"| {row['step']} | {row['seconds'] / 60:.1f} | {row['peak_mb']:.0f} |")
    print("\n" + "\n".join(f"    codegan {row['command']}" for row in taken))
    held_out = json.loads((out / "runs/flowers-ae/reconstructions.json").read_text())
    reconstruction_table("flowers held out of the training", held_out["rows"])
    photographs = json.loads((out / "inspect-photos/summary.json").read_text())
    reconstruction_table("photographs of another source", photographs["reconstructions"])
    print("\n| run | score | value | autoencoder floor | real floor | generated |\n|---|---|---|---|---|---|")
    for name in ("leaves", "flowers"):
        scores = json.loads((out / "runs" / name / "scores.json").read_text())
        for metric, score_of in ((key, value) for key, value in scores.items() if key.startswith(("fd", "kd"))):
            numbers = [f"{score_of[key]:.4g}" for key in ("value", "autoencoder_floor", "real_floor")]
            print(f"| {name} | {metric} | {' | '.join(numbers)} | {scores['num']} |")


if __name__ == "__main__":
    main()
