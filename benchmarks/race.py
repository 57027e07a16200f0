"""Equal time for every generator: what each draws after the same minutes, from nothing, on one machine.

    uv run python -m benchmarks.race --data FOLDER --out FOLDER --set flowers64 [--minutes 20] [--threads 1]
        [--entrants projected sle lightweight-gan]

FOLDER of the data holds flowers256.tar, appleleaf_256.tar and, below weights/, torchvision's squeezenet1_0 as
squeezenet*.pth. Entrants race one after another, each in processes of its own; one that is done is not raced again, so
the same command goes on after a stop. It prints a table and the settings, and writes curves.svg and samples.png below
FOLDER/SET. Give the machine nothing else to do meanwhile.

Rivals come from `uv pip install lightweight-gan` and `uv pip install --no-deps torch-mimicry`.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.race_entrants import ENTRANTS, Look, Pictures, Terms, missing, race
from benchmarks.race_report import save_curves, save_grid, tables
from data.errors import CodeganError
from pipelines.scoring.networks import load_features

SETS = {
    "flowers64": Pictures("flowers256.tar", 64),
    "flowers128": Pictures("flowers256.tar", 128),
    "leaves128": Pictures("appleleaf_256.tar", 128),
    "scenes64": Pictures("scenes:4096@64", 64),
    "try": Pictures("scenes:64@64", 64),  # to see whether all of this works
}


def find_pictures(data: Path, name: str) -> Pictures:
    """The set of that name; ends the program where its file is not there."""
    pictures = SETS[name]
    if pictures.data.startswith("scenes:"):
        return pictures
    if not (file := data / pictures.data).is_file():
        raise SystemExit(f"{file}: is not a file; give the folder that holds it to --data")
    return pictures._replace(data=str(file.resolve()))


def find_weights(data: Path) -> Path:
    """SqueezeNet's, tried before anything is raced; ends the program where they will not do."""
    weights = next((data / "weights").glob("squeezenet*.pth"), data / "weights" / "squeezenet1_0.pth").resolve()
    try:
        load_features("squeezenet", weights, torch.device("cpu"))
    except CodeganError as error:
        raise SystemExit(error.what) from error
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--entrants", nargs="+", choices=ENTRANTS, default=list(ENTRANTS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pictures, weights = find_pictures(options.data, options.set), find_weights(options.data)
    if absent := [what for entrant in options.entrants if (what := missing(entrant))]:
        raise SystemExit("; ".join(absent))
    out = options.out.resolve() / options.set
    terms = Terms(pictures, options.minutes, options.threads)
    races: dict[str, list[Look]] = {}
    failed = []
    for entrant in dict.fromkeys(options.entrants):
        try:
            races[entrant] = race(entrant, terms, out / entrant)
        except SystemExit as error:  # the others shall race on
            failed.append(str(error))
    if races:
        print(f"{describe()}; {options.set}, {options.minutes:g} minutes each, {options.threads} thread(s)\n")
        print("\n".join(tables(races, out, pictures, weights)))
        print(f"\nwrote {save_curves(races, out, pictures, weights)}\nwrote {save_grid(races, out, pictures)}")
        print(f"samples.png: real pictures, then {', '.join(races)}")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
