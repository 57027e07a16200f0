"""ConSinGAN with and without GCA, on pixels and on codes, a run for each picture (figures 6 and 7 of the paper on GCA).

    uv run python -m benchmarks.single_images --data single_images.tar --out FOLDER [--kimg 12] [--size 256]
        [--pictures 10] [--features inception] [--feature-weights FILE]

SIFID is the mean over ten samples, as of `codegan score --protocol single-image`; on other features than Inception's it
has their name. Each of the six stages lasts a sixth of --kimg. What is done is not repeated, so the same command goes
on after a stop.
"""

import argparse
import json
import shlex
from pathlib import Path
from statistics import mean

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from data.images import open_images, save_png, to_array

STAGES = 6
AUTOENCODERS = {"pixels": "pixels", "codes": "default"}


def write_pictures(data: list[str], out: Path, count: int) -> list[str]:
    """Put each picture into a folder of its own, which is a data set; return their names."""
    images = open_images(data)
    names = [Path(key).stem for key in images.keys[:count]]
    for index, name in enumerate(names):
        path = out / "pictures" / name / f"{name}.png"
        if not path.is_file():
            save_png(path, to_array(images.pil(index)))
    return names


def measured(
    out: Path, name: str, kind: str, attention: str, options: argparse.Namespace
) -> tuple[dict[str, float], float]:
    """Train and score on one picture: its SIFIDs, by their names, and the minutes of the training."""
    picture, store, slug = f"pictures/{name}", f"stores/{name}-{kind}", f"{name}-{kind}-{attention}"
    encode = f"encode --data {picture} --autoencoder {AUTOENCODERS[kind]} --out {store} --size {options.size}"
    run_verb(out, f"encode-{name}-{kind}", encode)
    train = f"train consingan --store {store} --out runs/{slug} --batch-size 1 --kimg {options.kimg}"
    train += f" --snapshot-kimg {options.kimg} --model.stage-kimg {options.kimg / STAGES} --model.attention {attention}"
    taken = run_verb(out, f"train-{slug}", train)
    score = f"score --run runs/{slug} --data {picture} --protocol single-image --features {options.features}"
    score += f" --out scores/{slug}.json"
    if options.feature_weights:
        score += f" --feature-weights {shlex.quote(str(options.feature_weights.resolve()))}"
    run_verb(out, f"score-{slug}", score)
    scores = json.loads((out / "scores" / f"{slug}.json").read_text())
    return {key: entry["value"] for key, entry in scores.items() if key.startswith("sifid")}, taken["seconds"] / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kimg", type=float, default=12.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--features", default="inception")
    parser.add_argument("--feature-weights", type=Path)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    names = write_pictures(options.data, out, options.pictures)
    print(f"{describe()}; {len(names)} pictures of {options.size} px, {options.kimg:g} thousand samples each\n")
    print("| picture | trained on | attention | SIFID of 10 samples | minutes |\n|---|---|---|---|---|", flush=True)
    for kind in AUTOENCODERS:
        for attention in ("none", "gca"):
            results = []
            for name in names:
                results.append(measured(out, name, kind, attention, options))
                found = ", ".join(f"{key} {value:.4g}" for key, value in results[-1][0].items())
                print(f"| {name} | {kind} | {attention} | {found} | {results[-1][1]:.1f} |", flush=True)
            means = ", ".join(f"{key} {mean(scores[key] for scores, _ in results):.4g}" for key in results[0][0])
            print(
                f"| mean | {kind} | {attention} | {means} | {mean(minutes for _, minutes in results):.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
