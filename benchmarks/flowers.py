"""From photographs to a generator, verb by verb, with the default autoencoder: the numbers of docs/flowers.md.

    uv run python -m benchmarks.flowers --data FOLDER --out FOLDER [--kimg 16] [--small-kimg 64]

FOLDER of the data holds flowers256.tar, appleleaf_256.tar and, below weights/, torchvision's squeezenet1_0 as
squeezenet*.pth. Steps already done are not run again, so the same command goes on after a stop.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from data.images import open_images, save_png

CODE_GAN = "--model.width 64 --model.lr {rate} --model.critic-lr {rate} --precision bf16"
FAST, STEADY = CODE_GAN.format(rate="5e-4"), CODE_GAN.format(rate="2.5e-4")
TUNING = "--kimg 2 --code-noise 0.05 --mirror --lr 3e-4 --lr-decay-kimg 1 --adversarial-weight 0 --precision bf16"
SAMPLES = 256
PROTOCOLS = ("accel", "giu", "fastgan", "gca")
METRICS = ("fd", "kd", "is", "sifid")


def save_first_picture(data: Path, folder: Path) -> None:
    """What a generator of a single image learns from."""
    folder.mkdir(exist_ok=True)
    save_png(folder / "flower.png", open_images(data, size=64).image(0))


def score_rows(title: str, scores: dict[str, Any]) -> list[str]:
    rows = []
    for metric, entry in scores.items():
        if metric.startswith(METRICS) and isinstance(entry, dict):
            low, high = entry.get("interval") or (None, None)
            numbers = [entry["value"], low, high, entry.get("autoencoder_floor"), entry.get("real_floor")]
            cells = ["" if number is None else f"{number:.4g}" for number in numbers]
            interval = f"{cells[1]} to {cells[2]}" if cells[1] else ""
            counts = f"{entry['num_generated']} against {entry['num_real']}"
            rows.append(f"| {title} | {metric} | {cells[0]} | {interval} | {cells[3]} | {cells[4]} | {counts} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kimg", type=float, default=16.0, help="of the leaves at 128 px")
    parser.add_argument("--small-kimg", type=float, default=64.0, help="of the flowers at 64 px")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "data").exists():
        (out / "data").symlink_to(options.data.resolve())
    weights = next(path.name for path in (out / "data/weights").glob("squeezenet*.pth"))
    save_first_picture(out / "data/flowers256.tar", out / "one")

    leaves, flowers = "data/appleleaf_256.tar", "data/flowers256.tar"
    features = f"--feature-weights data/weights/{weights}"
    score = f"--num {SAMPLES} --features squeezenet {features}"
    seen = f"--score-kimg {options.small_kimg / 8:g} --score-num 512 --score-features squeezenet {features}"
    plain = "--batch-size 16 --no-mirror"
    large = f"{plain} --kimg {options.kimg:g} --snapshot-kimg {options.kimg / 4:g} --model.ema-halflife-kimg 2"
    small = (
        f"{plain} --kimg {options.small_kimg:g} --snapshot-kimg {options.small_kimg / 16:g} --model.ema-halflife-kimg 5"
    )
    steps = {
        "fine-tune on leaves": f"train-ae --data {leaves} --init default --out runs/leaves-ae {TUNING}",
        "encode leaves": f"encode --data {leaves} --out stores/leaves --size 128 --precision bf16",
        "encode flowers": f"encode --data {flowers} --out stores/flowers --size 64 --precision bf16",
        "encode one flower": "encode --data one --out stores/one --size 64 --flip",
        "train on leaves": f"train accel --store stores/leaves --out runs/leaves {large} {FAST}",
        "train on flowers": f"train accel --store stores/flowers --out runs/flowers {small} {seen} {STEADY}",
        "train on one flower": f"train accel --store stores/one --out runs/one --kimg 0.4 --batch-size 2 {FAST}",
        "score leaves": f"score --run runs/leaves --data {leaves} {score}",
        "score flowers": f"score --run runs/flowers --data {flowers} {score}",
        **{
            f"protocol {name}": f"score --run runs/flowers --data {flowers} --protocol {name} {score}"
            for name in PROTOCOLS
        },
        "protocol single-image": "score --run runs/one --data one --protocol single-image --features offline",
        "report": f"report --run runs/flowers --data {flowers} --store stores/flowers",
    }
    taken = [run_verb(out, step, command) for step, command in steps.items()]

    print(f"\n{describe()}\n\n| step | minutes | peak memory, MB |\n|---|---|---|")
    for row in taken:
        print(f"| {row['step']} | {row['seconds'] / 60:.1f} | {row['peak_mb']:.0f} |")
    print("\n" + "\n".join(f"    codegan {row['command']}" for row in taken))
    tuned = json.loads((out / "runs/leaves-ae/reconstructions.json").read_text())
    print("\n| leaves held out | images | PSNR dB, default | fine-tuned |\n|---|---|---|---|")
    for before, after in zip(tuned["rows_before"], tuned["rows"], strict=True):
        print(f"| {after['size']} px | {after['count']} | {before['psnr']:.2f} | {after['psnr']:.2f} |")
    print(
        "\n| | score | value | 95% interval | autoencoder floor | real floor | images |\n|---|---|---|---|---|---|---|"
    )
    for name in ("leaves", "flowers"):
        print("\n".join(score_rows(name, json.loads((out / "runs" / name / "scores.json").read_text()))))
    for run, name in (*(("flowers", name) for name in PROTOCOLS), ("one", "single-image")):
        scores = json.loads((out / "runs" / run / f"scores-{name}.json").read_text())
        print("\n".join(score_rows(f"{name}, {', '.join(scores['protocol_departures'])}", scores)))


if __name__ == "__main__":
    main()
