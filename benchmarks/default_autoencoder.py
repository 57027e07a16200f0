"""The default autoencoder, from its data to its card: the numbers of docs/autoencoder.md.

    uv run python -m benchmarks.default_autoencoder prepare --data FOLDER --packages SITE --out FOLDER
    uv run python -m benchmarks.default_autoencoder train --out FOLDER [--init RUN] [FLAGS OF train-ae]
    uv run python -m benchmarks.default_autoencoder export --out FOLDER
    uv run --group benchmarks python -m benchmarks.default_autoencoder measure --out FOLDER [--compared RUN ...]

`prepare` cuts every source, by image, into 90 % to train on (OUT/train) and 10 % never trained on (OUT/held-out), as
tar shards of the same bytes on every machine. FOLDER of the data holds flowers256.tar and photos1024.tar; SITE is where
`pip install --target SITE scikit-image scikit-learn` put their photographs. `train` resumes itself; the run is
OUT/run unless --run names another, and flags of `train-ae` take the place of those of the recipe. `export` puts its
weights into the package, and `measure` prints the tables of the packaged weights, or of those of --run.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import default_measures as measures
from data.files.checkpoints import load_weights
from data.images import ImageSet, open_images, save_png
from data.seeds import derive_seed
from stage1_autoencoder.default import DEFAULT, save_default
from stage1_autoencoder.evaluate import PAPER_MSE, reconstruction_table
from stage1_autoencoder.networks import Autoencoder

SEED, HELD_OUT = 6, 0.1
MAX_BYTES = 8_000_000
SCENES, SCENES_SIZE = 400, 256
# How often each training picture appears. Only the photographs have detail at 1024 px, and a crop sees 1 % of one.
REPEATS = {"flowers": 1, "photos": 32, "packages": 10, "scenes": 1}
# Those of public domain or CC0 in skimage.data, and scikit-learn's two (CC-BY 2.0, see the README beside them).
PACKAGED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg", "text.png"),
    *("china.jpg", "flower.jpg"),
)
RECIPE = (
    "--factor 4 --code-channels 16 --width 64 --precision bf16 --batch-size 8 --seed 6 --lr 7e-4 --lr-ramp-kimg 2"
    " --lr-decay-kimg 12 --ema-halflife-kimg 4 --jitter 0.1 --snapshot-kimg 2 --adversarial-weight 0 --kimg 24"
    " --code-noise 0.05 --mirror"
)
HERE_ONLY = {"kind", "crc32c", "data", "out", "init", "allow_host", "tracker", "threads", "max_skip", "snapshot_kimg"}
PHOTOGRAPHS = ("flowers", "photos", "packages")
MEASURED = 64  # held-out photographs of each source and size behind the errors in the package


def tar_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.name.endswith(".jpg") and (file := tar.extractfile(member)):
                yield member.name, file.read()


def packaged_pictures(site: Path) -> Iterator[tuple[str, bytes]]:
    folders = (site / "skimage/data", site / "sklearn/datasets/images")
    for name in PACKAGED:
        yield name, next(folder / name for folder in folders if (folder / name).is_file()).read_bytes()


def drawn_scenes(scratch: Path) -> Iterator[tuple[str, bytes]]:
    scenes = open_images(f"scenes:{SCENES}@{SCENES_SIZE}", seed=SEED)
    for index, key in enumerate(scenes.keys):
        path = scratch / f"{key}.png"
        save_png(path, scenes.image(index))
        yield path.name, path.read_bytes()
        path.unlink()


def split(source: str, count: int) -> set[int]:
    """Indices held out, at least one."""
    random = np.random.default_rng(derive_seed(SEED, sorted(REPEATS).index(source)))
    return set(random.permutation(count)[: max(1, round(HELD_OUT * count))].tolist())


def write_tar(path: Path, pictures: list[tuple[str, bytes]]) -> str:
    """The SHA-256 of a shard whose bytes depend on names and contents alone."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in pictures:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prepare(data: Path, site: Path, out: Path) -> None:
    for folder in ("train", "held-out"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    sources = {
        "flowers": tar_pictures(data / "flowers256.tar"),
        "photos": tar_pictures(data / "photos1024.tar"),
        "packages": packaged_pictures(site),
        "scenes": drawn_scenes(out),
    }
    manifest: dict[str, dict[str, Any]] = {}
    for source, pictures in sources.items():
        named = [(f"{source}-{name}", content) for name, content in pictures]
        apart = split(source, len(named))
        kept = [picture for index, picture in enumerate(named) if index not in apart]
        held_out = [named[index] for index in sorted(apart)]
        repeated = [(f"{copy:02d}-{name}", content) for copy in range(REPEATS[source]) for name, content in kept]
        manifest[source] = {
            "train": len(kept),
            "repeats": REPEATS[source],
            "held out": [name for name, _ in held_out],
            "sha256": {
                "train": write_tar(out / "train" / f"{source}.tar", repeated),
                "held-out": write_tar(out / "held-out" / f"{source}.tar", held_out),
            },
        }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    print("| source | trained on | times each | held out |\n|---|---|---|---|")
    for source, cut in manifest.items():
        print(f"| {source} | {cut['train']} | {cut['repeats']} | {len(cut['held out'])} |")


def train(out: Path, run: Path, changes: Sequence[str]) -> None:
    """Become `codegan train-ae`, so that whoever stops this stops that."""
    data = [str(out / "train" / f"{source}.tar") for source in REPEATS]
    words = ["train-ae", "--data", *data, "--out", str(run), *RECIPE.split(), *changes]
    os.execv(sys.executable, [sys.executable, "-m", "pipelines", *words])


def held_out_sets(out: Path) -> dict[str, ImageSet]:
    return {source: open_images(out / "held-out" / f"{source}.tar") for source in REPEATS}


def held_out_errors(autoencoder: Autoencoder, sets: Sequence[ImageSet]) -> dict[str, float]:
    """By size, the mean squared error of a photograph in [-1, 1], whatever its source."""
    rows = [
        row for images in sets for row in reconstruction_table(autoencoder, images, list(PAPER_MSE), limit=MEASURED)
    ]
    return {
        str(size): float(np.average([row["mse"] for row in of_size], weights=[row["count"] for row in of_size]))
        for size in PAPER_MSE
        if (of_size := [row for row in rows if row["size"] == size])
    }


def export(out: Path, run: Path) -> None:
    autoencoder = Autoencoder.load(run)
    if (size := 2 * sum(parameter.numel() for parameter in autoencoder.parameters())) > MAX_BYTES:
        raise SystemExit(f"{run}: {size / 1e6:.2f} MB in float16, more than {MAX_BYTES / 1e6:g}")
    config = json.loads((run / "config.json").read_text())
    recipe = {name: value for name, value in config.items() if name not in HERE_ONLY}
    nimg, sets = load_weights(run / "weights").state["nimg"], held_out_sets(out)
    errors = held_out_errors(autoencoder, [sets[source] for source in PHOTOGRAPHS])
    folder = save_default(autoencoder.state_dict(), autoencoder.config, nimg=nimg, recipe=recipe, held_out_mse=errors)
    photos = sets["photos"]
    full, half = (
        reconstruction_table(one, photos, [256])[0]["psnr"]
        for one in (autoencoder, Autoencoder.load(f"{DEFAULT}:{autoencoder.factor}"))
    )
    print(f"{folder}: {size / 1e6:.2f} MB, {nimg} crops; held-out photographs at 256 px:")
    print(f"{full:.4f} dB in float32, {half:.4f} dB from the float16 in the package")


@torch.inference_mode()
def measure(out: Path, run: Path | None, compared: Sequence[Path]) -> None:
    autoencoder, sources = Autoencoder.load(run or DEFAULT), held_out_sets(out)
    autoencoders = {"these weights": autoencoder} | {path.name: Autoencoder.load(path) for path in compared}
    measures.reconstruction(autoencoder, sources)
    measures.tolerance(autoencoders, sources["flowers"])
    for name, one in autoencoders.items():
        print(f"\n{name}:")
        measures.codes_of(one, sources["flowers"])
        measures.mirrors(one, sources["flowers"])
    measures.kinds(autoencoder, sources["photos"])
    measures.encode_cost(autoencoder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing, training = verbs.add_parser("prepare"), verbs.add_parser("train")
    exporting, measuring = verbs.add_parser("export"), verbs.add_parser("measure")
    preparing.add_argument("--data", type=Path, required=True)
    preparing.add_argument("--packages", type=Path, required=True)
    measuring.add_argument("--compared", type=Path, nargs="*", default=[], help="runs for the tables that compare")
    for verb in (training, exporting, measuring):
        verb.add_argument("--run", type=Path)
    for verb in (preparing, training, exporting, measuring):
        verb.add_argument("--out", type=Path, required=True)
    options, others = parser.parse_known_args()
    if others and options.verb != "train":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if options.verb == "prepare":
        prepare(options.data, options.packages, options.out)
    elif options.verb == "train":
        train(options.out, options.run or options.out / "run", others)
    elif options.verb == "export":
        export(options.out, options.run or options.out / "run")
    else:
        measure(options.out, options.run, options.compared)


if __name__ == "__main__":
    main()
