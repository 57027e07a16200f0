"""Every variant, and the rows of the papers' ablations, trained alike on one store: the table of docs/variants.md.

    uv run python -m benchmarks.ablations --store STORE --data DATA --out FOLDER --feature-weights FILE
        [--groups variants projected giu lrm gca sle] [--rows LABEL ...] [--kimg 16] [--seeds 0 1]
        [--num 512] [--published-widths]

The wide networks train at a quarter of their published width unless told otherwise, so that a CPU finishes. Scores
are those of `codegan score --features squeezenet`, of samples of the averaged generator. Runs already done are not
repeated, so the same command goes on after a stop.
"""

import argparse
import json
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.verbs import run_verb
from data.files.runs import read_metrics
from data.latents import LatentStore
from pipelines.models import cost
from stage2_codegen.variants import VARIANTS

QUARTER = {"accel": "--model.width 64", "r3": "--model.width 64", "lrm": "--model.width 8", "sle": "--model.width 16"}

# group -> label -> variant and flags
ROWS: dict[str, dict[str, tuple[str, str]]] = {
    "variants": {name: (name, "") for name in VARIANTS},
    "projected": {
        "picture head alone": ("projected", "--model.backbone none"),
        "features alone": ("projected", "--model.no-picture-head"),
        "the finest scale": ("projected", "--model.scales 1"),
        "the two finest": ("projected", "--model.scales 2"),
        "the backbone's own features": ("projected", "--model.no-mixing"),
        "the whole decoder": ("projected", "--model.decode full"),
        "augmented by translation alone": ("projected", "--model.augment translation"),
        "without mirrors": ("projected", "--no-mirror"),
        "standardised codes": ("projected", "--model.standardise"),
        "two batches of fakes a step": ("projected", "--model.no-one-batch-of-fakes"),
        "without drift": ("projected", "--model.drift-weight 0"),
        "projected": ("projected", ""),
    },
    "giu": {
        "neither": ("giu", "--model.generator-giu --model.critic-giu --model.generator-rbn"),
        "RBN": ("giu", "--model.generator-giu --model.critic-giu"),
        "GIU": ("giu", "--model.generator-rbn"),
        "GIU and RBN": ("giu", ""),
    },
    "lrm": {
        "without metadata": ("lrm", "--model.metadata-dim 0"),
        "without long range": ("lrm", "--model.long-range none"),
        "residual block instead": ("lrm", "--model.long-range residual"),
        "self-attention instead": ("lrm", "--model.long-range attention"),
        "long range, pairwise": ("lrm", "--model.relation pairwise"),
        "long range": ("lrm", ""),
    },
    "gca": {
        "none (the host, dcgan)": ("dcgan", ""),
        "non-local": ("gca", "--model.relation non-local"),
        "GCA": ("gca", ""),
    },
    "sle": {
        "neither": ("sle", "--model.excitation none --model.reconstruct none"),
        "skip-layer excitation": ("sle", "--model.reconstruct none"),
        "self-supervision": ("sle", "--model.excitation none"),
        "both": ("sle", ""),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("store", "data", "out", "feature-weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=list(ROWS), default=list(ROWS))
    labels = [label for rows in ROWS.values() for label in rows]
    parser.add_argument("--rows", nargs="+", choices=labels, default=labels, metavar="LABEL")
    parser.add_argument("--kimg", type=float, default=16.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--published-widths", action="store_true")
    options = parser.parse_args()
    chosen = {
        group: rows
        for group in options.groups
        if (rows := {label: row for label, row in ROWS[group].items() if label in options.rows})
    }
    if not chosen:
        parser.error("--rows: none of them is in these --groups")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    shape = LatentStore.open(options.store).code_shape
    training = f"--store {options.store.resolve()} --kimg {options.kimg} --snapshot-kimg {options.kimg}"
    training += f" --batch-size 16 --precision {options.precision}"
    scoring = f"--data {options.data.resolve()} --num {options.num} --metrics fid"
    scoring += f" --features squeezenet --feature-weights {options.feature_weights.resolve()}"
    print(f"{describe()}; codes {' x '.join(map(str, shape))}, {options.kimg:g} thousand samples, batch 16, ", end="")
    print(f"{options.precision}, seeds {' '.join(map(str, options.seeds))}, scores of {options.num} samples")
    for group, rows in chosen.items():
        print(f"\n### {group}\n\n| | parameters, M | peak memory, MB | score of real / fake | fd-squeezenet |")
        print("|---|---|---|---|---|", flush=True)
        for label, (variant, flags) in rows.items():
            flags = flags if options.published_widths else f"{QUARTER.get(variant, '')} {flags}".strip()
            scores, ends, peak = [], [], 0.0
            for seed in options.seeds:
                slug = f"{variant}{flags.replace('--model.', '').replace(' ', '-')}-{seed}"
                run = out / "runs" / slug
                command = f"train {variant} --out {run} --seed {seed} {training} {flags}"
                peak = max(peak, run_verb(out, f"train-{slug}", command)["peak_mb"])
                run_verb(out, f"score-{slug}", f"score --run {run} {scoring}")
                distance = json.loads((run / "scores.json").read_text())["fd-squeezenet"]
                scores.append(distance["value"])
                last = next(entry for entry in reversed(read_metrics(run)) if "score/real" in entry)
                ends.append(f"{last['score/real']:.2f} / {last['score/fake']:.2f}")
            model = json.loads((out / "runs" / slug / "config.json").read_text())["model"]
            taken = cost(variant, shape, **model)
            parameters = f"{taken.generator_parameters / 1e6:.2f} / {taken.critic_parameters / 1e6:.2f}"
            values = ", ".join(f"{score:.3g}" for score in scores)
            print(f"| {label} | {parameters} | {peak:.0f} | {', '.join(ends)} | {values} |", flush=True)
    floors = f"{distance['real_floor']:.3g} between real halves, {distance['autoencoder_floor']:.3g} by the autoencoder"
    print(f"\nOne entry a seed; scores of the critic at the last log. Floors of fd-squeezenet: {floors}.")


if __name__ == "__main__":
    main()
